package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/lease"
	"github.com/rocketflow/rocketflow/internal/logging"
	"github.com/rocketflow/rocketflow/internal/valid"
)

// ReconcilerBroker is what a Reconciler asks and, with Mend, sends to. *rocketmq.Client implements it.
type ReconcilerBroker interface {
	broker.Inspector
	Sender
}

// ReconcilerConfig configures a Reconciler.
type ReconcilerConfig struct {
	// Reconcile says what is compared. Its Since defaults to 24 h: how far back a process goes that takes over.
	Reconcile ReconcileConfig
	// Pool connects to the database with Schema. Required.
	Pool *pgxpool.Pool
	// Schema has the lease by which one process at a time reconciles.
	// Defaults to rocketflow.DefaultSchema.
	Schema string
	// Pools connect to further databases that have schemas of publishers or consumers. All schemas with rocketflow's tables that
	// the role may read are compared, in the database of Pool as well.
	// Defaults to none.
	Pools []*pgxpool.Pool
	// Schemas restricts which schemas are compared.
	// Defaults to all.
	Schemas []string
	// Broker is asked what is unread. nil: what nothing is recorded of is counted as unknown.
	Broker ReconcilerBroker
	// Every is the time between two passes. At least 1 s.
	// Defaults to 1 min.
	Every time.Duration
	// Report gets the result of each pass, or the error by which it failed, in the one process that reconciles; and nil and nil
	// when that process has lost the lease. Calls don't overlap.
	// Defaults to none; what is missing is logged in any case.
	Report func(*Reconciliation, error)
	// Clock says when the next pass is due.
	// Defaults to the machine's.
	Clock rocketflow.Clock
	// Logger gets what is missing and what could not be compared, once, and passes that failed.
	// Defaults to warnings and errors on stderr.
	Logger *slog.Logger
}

func (c ReconcilerConfig) withDefaults() ReconcilerConfig {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.Every = cmp.Or(c.Every, time.Minute)
	c.Reconcile.Since = cmp.Or(c.Reconcile.Since, 24*time.Hour)
	c.Reconcile = c.Reconcile.withDefaults()
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Logger = logging.Or(c.Logger)
	return c
}

func (c ReconcilerConfig) validate() error {
	switch {
	case c.Pool == nil:
		return valid.Field("operate.ReconcilerConfig.Pool", "missing")
	case c.Every < time.Second:
		return valid.Fieldf("operate.ReconcilerConfig.Every", "%v: want at least 1 s", c.Every)
	}
	return c.Reconcile.validate()
}

// Reconciler reconciles continuously. Of the processes that run one on a schema, one does, by a lease. A pass reads the events that are
// new since the one before and those that were still open, so its cost follows what is new and what waits, not what was published.
// It reads by transaction, so an event whose transaction was open for long isn't overlooked; while a transaction stays open, events
// of later ones are compared after it.
//
// What a pass has counted as handled isn't looked at again. A process that takes over begins with the events of the last
// ReconcileConfig.Since. All methods are safe for concurrent use.
type Reconciler struct {
	config ReconcilerConfig
	holder uuid.UUID
	group  background.Group

	// Used by the loop alone.
	watch    *Watch
	reported map[uuid.UUID]bool // missing events that were logged
	unknown  string             // what was logged as not compared
	heldAt   time.Time          // when the lease was held at the latest
	failing  bool
	panics   guard.Reporter
}

// reconcilerLease is the name of the lease, in the table lease.
const reconcilerLease = "reconciliation"

// NewReconciler returns a Reconciler that is not started. An error is a *rocketflow.FieldError.
func NewReconciler(c ReconcilerConfig) (*Reconciler, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Reconciler{config: c, holder: uuid.New(), panics: guard.Reporter{Logger: c.Logger, Part: "reconciler"}}, nil
}

// Start begins to reconcile in the background. A started Reconciler stays as it is.
func (r *Reconciler) Start(ctx context.Context) error {
	return r.group.Start(ctx, func(context.Context) error {
		r.watch, r.reported, r.unknown = nil, map[uuid.UUID]bool{}, ""
		r.group.Go(func(ctx context.Context) {
			background.Loop{Clock: r.config.Clock}.Every(ctx, r.config.Every, r.turn)
			release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_ = lease.Release(release, r.config.Pool, r.config.Schema, reconcilerLease, r.holder) // it expires anyway
		})
		return nil
	})
}

// Stop ends a pass that is under way, and lets another process take over. It waits until ctx ends.
func (r *Reconciler) Stop(ctx context.Context) error { return r.group.Stop(ctx) }

// leaseTime is how long the lease is held without being renewed.
func (r *Reconciler) leaseTime() time.Duration { return max(30*time.Second, 3*r.config.Every) }

// acquire takes or renews the lease.
func (r *Reconciler) acquire(ctx context.Context) (held bool, err error) {
	at := r.config.Clock.Now()
	held, err = lease.Acquire(ctx, r.config.Pool, r.config.Schema, reconcilerLease, r.holder, r.leaseTime())
	if err == nil && held {
		r.heldAt = at
	}
	return held, err
}

// errLeaseLost ends a pass during which another process may have begun one: it may have sent again what this one has found to be missing.
var errLeaseLost = errors.New("the pass took so long that another process may reconcile")

// keep renews the lease during a pass.
func (r *Reconciler) keep(ctx context.Context) error {
	switch since := r.config.Clock.Now().Sub(r.heldAt); {
	case since < r.leaseTime()/4:
		return nil
	case since > r.leaseTime()/2: // at least as much was left: see lease.Acquire
		return errLeaseLost
	}
	held, err := r.acquire(ctx)
	if err == nil && !held {
		err = errLeaseLost
	}
	return err
}

// turn makes a pass, if this process holds the lease.
func (r *Reconciler) turn(ctx context.Context) {
	c := r.config
	held, err := r.acquire(ctx)
	if err == nil && !held {
		if r.watch != nil {
			r.watch = nil
			r.report(nil, nil)
		}
		return
	}
	var x *Reconciliation
	if err == nil {
		x, err = r.pass(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	switch {
	case err != nil && !r.failing:
		r.failing = true
		c.Logger.Warn("reconciliation failed and is tried again; until it succeeds nobody knows whether events are missing", "error", err, "retry_after", c.Every)
	case err == nil:
		r.failing = false
		r.log(x)
	}
	r.report(x, err)
}

func (r *Reconciler) report(x *Reconciliation, err error) {
	if r.config.Report != nil {
		r.panics.Report("ReconcilerConfig.Report", guard.Run(func() { r.config.Report(x, err) }))
	}
}

// log logs each missing event once.
func (r *Reconciler) log(x *Reconciliation) {
	n, first := 0, MissingEvent{}
	missing := map[uuid.UUID]bool{}
	for _, v := range x.Missing {
		missing[v.EventID] = true
		if !r.reported[v.EventID] {
			if n++; n == 1 {
				first = v
			}
		}
	}
	r.reported = missing
	if n > 0 {
		r.config.Logger.Error("events are missing: consumers should have handled them and have no record of them; see `rocketflow reconcile`, and `rocketflow why` for each",
			"events", n, "event_id", first.EventID, "type", first.Type, "consumer", first.Consumer, "cause", first.Cause, "sent_again", x.Mended)
	}
	r.logUncompared(x)
}

// logUncompared logs what could not be compared, when that has changed.
func (r *Reconciler) logUncompared(x *Reconciliation) {
	var schemas, types []string
	for _, u := range x.Unread {
		schemas = append(schemas, u.Schema)
	}
	for _, u := range x.Unclaimed {
		types = append(types, u.Type+" of "+u.Topic)
	}
	unknown := fmt.Sprint(schemas, types, x.Partial)
	switch {
	case unknown == r.unknown:
	case len(schemas) > 0 || x.Partial:
		r.config.Logger.Warn("not everything is compared, so events may be missing that aren't reported; let the reconciler's role read the schemas of all consumers, or name their databases in Pools, and see `rocketflow reconcile`",
			"unread_schemas", schemas, "types_without_consumer", types, "partial", x.Partial)
	case len(types) > 0: // as of events that nobody wants
		r.config.Logger.Info("no consumer of the schemas that are compared handles events of these types", "types", types)
	case r.unknown != "":
		r.config.Logger.Info("everything is compared again")
	}
	r.unknown = unknown
}

// system discovers the schemas.
func (r *Reconciler) system(ctx context.Context) (*System, error) {
	c := SystemConfig{}
	if r.config.Broker != nil {
		c.Broker = r.config.Broker
	}
	for _, pool := range append([]*pgxpool.Pool{r.config.Pool}, r.config.Pools...) {
		found, unread, err := Discover(ctx, pool, r.config.Schemas...)
		if err != nil {
			return nil, err
		}
		for _, o := range found {
			o.config.Broker = r.config.Broker
			c.Operators = append(c.Operators, o)
		}
		c.Unread = append(c.Unread, unread...)
	}
	if len(r.config.Schemas) > 0 { // each may be in one of the databases
		c.Unread = slices.DeleteFunc(c.Unread, func(u UnreadSchema) bool {
			return slices.ContainsFunc(c.Operators, func(o *Operator) bool { return o.config.Schema == u.Schema })
		})
	}
	return NewSystem(c)
}

// pass makes one pass.
func (r *Reconciler) pass(ctx context.Context) (*Reconciliation, error) {
	y, err := r.system(ctx)
	if err != nil {
		return nil, err
	}
	if r.watch == nil {
		r.watch = y.Watch(r.config.Reconcile)
	}
	r.watch.system, r.watch.keep = y, r.keep
	return r.watch.Next(ctx)
}
