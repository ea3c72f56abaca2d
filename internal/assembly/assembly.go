// Package assembly builds the parts of a service: it fills in the fields of each part's Config that all parts share (pool,
// schema, clock, logger, metrics) and the dependencies between the parts. Packages app and rocketflowfx both use it.
package assembly

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/valid"
	"github.com/rocketflow/rocketflow/metrics"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
	"github.com/rocketflow/rocketflow/tracing"
)

// openTimeout bounds the connection to the broker.
const openTimeout = 10 * time.Second

// Shared is what the parts of one service have in common. A field of a part's Config that the application has set takes
// precedence over it.
type Shared struct {
	Service string
	Schema  string // empty: rocketflow.DefaultSchema
	Pool    *pgxpool.Pool
	Client  *rocketmq.Client
	Clock   rocketflow.Clock // nil: the machine's
	Logger  *slog.Logger     // nil: warnings and errors go to stderr
	Metrics *metrics.Metrics // nil: nothing is counted
	Tracing *tracing.Tracing // nil: no spans
}

// OpenClient connects to the broker. While no broker can be reached it succeeds and the client connects later, unless
// requireBroker is true.
func (s Shared) OpenClient(c rocketmq.Config, requireBroker bool) (*rocketmq.Client, error) {
	c.Service = cmp.Or(c.Service, s.Service)
	c.Logger = cmp.Or(c.Logger, s.Logger)
	if c.Clock == nil {
		c.Clock = s.Clock
	}
	if s.Metrics != nil {
		c.Listener = rocketmq.Tee(c.Listener, s.Metrics.RocketMQ())
	}
	if !requireBroker {
		c.AwaitBroker = true
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	return rocketmq.Open(ctx, c)
}

// fill sets the fields that the Configs of all parts have, unless they are set.
func (s Shared) fill(pool **pgxpool.Pool, schema *string, clock *rocketflow.Clock, logger **slog.Logger) {
	*pool = cmp.Or(*pool, s.Pool)
	*schema = cmp.Or(*schema, s.Schema)
	*logger = cmp.Or(*logger, s.Logger)
	if *clock == nil {
		*clock = s.Clock
	}
}

// NewOutbox builds the outbox. topics are the topics that Publish accepts, unless c.Topics is set.
func (s Shared) NewOutbox(c outbox.Config, topics []string) (*outbox.Outbox, error) {
	s.fill(&c.Pool, &c.Schema, &c.Clock, &c.Logger)
	if c.Broker == nil {
		c.Broker = s.Client
	}
	c.Source = cmp.Or(c.Source, s.Service)
	if c.Topics == nil {
		c.Topics = topics
	}
	if s.Client != nil {
		profile := s.Client.Profile()
		if limit := profile.Facts().MaxBody; limit.Is > 0 && c.MaxBody > limit.Is {
			return nil, valid.Fieldf("outbox.Config.MaxBody", "%d: want at most %d (profile %s, %s)", c.MaxBody, limit.Is, profile, limit.Source)
		}
	}
	if s.Metrics != nil {
		c.Listener = outbox.Tee(c.Listener, s.Metrics.Outbox())
	}
	if s.Tracing != nil {
		c.Listener = outbox.Tee(c.Listener, s.Tracing.Outbox())
		if c.OnPublish == nil {
			c.OnPublish = s.Tracing.Publish
		}
	}
	o, err := outbox.New(c)
	if err != nil {
		return nil, err
	}
	if s.Metrics != nil {
		s.Metrics.ObserveBacklog(o)
		operator, err := operate.New(operate.Config{Pool: c.Pool, Schema: c.Schema})
		if err != nil {
			return nil, err
		}
		s.Metrics.ObserveWork(operator)
		if s.Client != nil {
			s.Metrics.ObserveUnread(operator, s.Client)
		}
	}
	return o, nil
}

// NewScheduler builds the scheduler of timeouts.
func (s Shared) NewScheduler(c timeout.Config) (*timeout.Scheduler, error) {
	s.fill(&c.Pool, &c.Schema, &c.Clock, &c.Logger)
	if c.Broker == nil {
		c.Broker = s.Client
	}
	c.Source = cmp.Or(c.Source, s.Service)
	if s.Metrics != nil {
		c.Listener = timeout.Tee(c.Listener, s.Metrics.Timeout())
	}
	if s.Tracing != nil && c.OnArm == nil {
		c.OnArm = s.Tracing.Publish
	}
	return timeout.New(c)
}

// NewRouter builds the router. transactor runs the transactions of handlers; if it is a handlers.Requester as well, as the
// outbox is, it requests missing events. If timers isn't nil, its fence becomes the outermost middleware, so that the event
// of a timeout takes effect once and other middleware isn't called for a stale one.
func (s Shared) NewRouter(c handlers.Config, transactor rocketflow.Transactor, timers *timeout.Scheduler) (*handlers.Router, error) {
	s.fill(&c.Pool, &c.Schema, &c.Clock, &c.Logger)
	if c.Broker == nil {
		c.Broker = s.Client
	}
	if c.Transactor == nil {
		c.Transactor = transactor
	}
	if c.Requester == nil {
		c.Requester, _ = transactor.(handlers.Requester) // not if the application has decorated the outbox
	}
	c.Source = cmp.Or(c.Source, s.Service)
	if s.Metrics != nil {
		c.Listener = handlers.Tee(c.Listener, s.Metrics.Handlers())
	}
	r, err := handlers.New(c)
	if err != nil {
		return nil, err
	}
	if timers != nil {
		r.Use(timers.Fence)
	}
	if s.Tracing != nil {
		r.Use(s.Tracing.Middleware)
	}
	return r, nil
}

// NewReconciler builds the reconciler.
func (s Shared) NewReconciler(c operate.ReconcilerConfig) (*operate.Reconciler, error) {
	s.fill(&c.Pool, &c.Schema, &c.Clock, &c.Logger)
	if c.Broker == nil {
		c.Broker = s.Client
	}
	if s.Metrics != nil {
		own, count := c.Report, s.Metrics.Reconciliation()
		c.Report = func(x *operate.Reconciliation, err error) {
			count(x, err)
			if own != nil {
				own(x, err)
			}
		}
	}
	return operate.NewReconciler(c)
}

// NewEngine builds the engine of sagas.
func (s Shared) NewEngine(c saga.Config, router *handlers.Router, transactor rocketflow.Transactor, timers *timeout.Scheduler) (*saga.Engine, error) {
	s.fill(&c.Pool, &c.Schema, &c.Clock, &c.Logger)
	if c.Router == nil {
		c.Router = router
	}
	if c.Transactor == nil {
		c.Transactor = transactor
	}
	if c.Timer == nil {
		c.Timer = timers
	}
	c.Consumer = cmp.Or(c.Consumer, s.Service)
	if s.Metrics != nil {
		c.Listener = saga.Tee(c.Listener, s.Metrics.Saga())
	}
	if s.Tracing != nil && c.Around == nil {
		c.Around = s.Tracing.Transition
	}
	return saga.New(c)
}
