package handlers

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/clock"
)

// Config says how a Router works. Pool, Transactor and Broker are required.
type Config struct {
	Pool       *pgxpool.Pool
	Transactor rocketflow.Transactor // runs the handlers' transactions, at Read Committed; usually *outbox.Outbox
	Broker     broker.Subscriber

	Schema      string // of rocketflow's tables; default rocketflow.DefaultSchema
	Refill      Asker  // asked for events that a consumer misses; usually the *outbox.Outbox. nil: a gap waits for the broker
	GroupPrefix string // a consumer's group at the broker is this and its name; default none

	// Lanes is how many transactions a consumer runs side by side; default 8. A stream keeps to one lane.
	Lanes int
	// BatchSize is how many events at most share a transaction; default 64. 1: each has its own.
	BatchSize int
	// MaxInFlight is how many messages a consumer holds unsettled; default 256.
	MaxInFlight int
	// RateLimit is how many events a second a consumer handles in this process; default 0, no limit.
	RateLimit float64
	// Timeout is how long one call of a handler may take; default 30 s. Its context ends then.
	Timeout time.Duration
	// GapWait is how long an event waits in memory for its predecessor before it is parked; default 200 ms, negative:
	// not at all.
	GapWait time.Duration
	// AdoptAfter is how long the first event that a consumer meets of a stream waits for a predecessor that is older than
	// the consumer, before it is handled without it; default 1 minute. The predecessor may be on its way all the same;
	// when it comes too late it becomes a dead letter that holds nobody.
	AdoptAfter time.Duration
	Retry      RetryPolicy

	// InboxRetention is how long events without order are remembered; default 7 days. Older ones can't be told from
	// duplicates and become dead letters: it must be longer than the broker keeps messages.
	InboxRetention time.Duration
	// PositionRetention is the same for ordered events, of which only one row a stream is kept; default 30 days.
	PositionRetention time.Duration

	// Clock times the waits between two looks and says what is too old to be remembered; when a parked event is due is for
	// Postgres to say. Default: the machine's.
	Clock    rocketflow.Clock
	Listener *Listener
	Logger   *slog.Logger // default: discard
}

// RetryPolicy says when a failed event is tried again.
type RetryPolicy struct {
	Attempts int           // how many in all, the first included; default 8
	Base     time.Duration // the wait after the first failure, doubled by each further one; default 1 s
	Max      time.Duration // the longest wait; default 5 min
	Jitter   float64       // the part of a wait that is random, 0 to 1; default 0.2, negative: none
}

// maxGroup is the longest name that RocketMQ takes for a group.
const maxGroup = 120

func (c Config) withDefaults() Config {
	c.Schema = cmp.Or(c.Schema, rocketflow.DefaultSchema)
	c.Lanes = cmp.Or(c.Lanes, 8)
	c.BatchSize = cmp.Or(c.BatchSize, 64)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 256)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.GapWait = cmp.Or(c.GapWait, 200*time.Millisecond)
	c.AdoptAfter = cmp.Or(c.AdoptAfter, time.Minute)
	c.Retry.Attempts = cmp.Or(c.Retry.Attempts, 8)
	c.Retry.Base = cmp.Or(c.Retry.Base, time.Second)
	c.Retry.Max = cmp.Or(c.Retry.Max, 5*time.Minute)
	c.Retry.Jitter = cmp.Or(c.Retry.Jitter, 0.2)
	c.InboxRetention = cmp.Or(c.InboxRetention, 7*24*time.Hour)
	c.PositionRetention = cmp.Or(c.PositionRetention, 30*24*time.Hour)
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	c.Listener = c.Listener.withDefaults()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	bad := func(field, reason string) error {
		return &rocketflow.FieldError{Field: "handlers.Config." + field, Reason: reason}
	}
	switch {
	case c.Pool == nil:
		return bad("Pool", "missing")
	case c.Transactor == nil:
		return bad("Transactor", "missing")
	case c.Broker == nil:
		return bad("Broker", "missing")
	case c.Lanes < 1:
		return bad("Lanes", "want at least 1")
	case c.BatchSize < 1:
		return bad("BatchSize", "want at least 1")
	case c.MaxInFlight < 1:
		return bad("MaxInFlight", "want at least 1")
	case c.RateLimit < 0:
		return bad("RateLimit", "want events a second, or 0 for no limit")
	case c.Timeout < 0:
		return bad("Timeout", "want more than 0")
	case c.Retry.Attempts < 1:
		return bad("Retry.Attempts", "want at least 1")
	case c.Retry.Base < 0 || c.Retry.Max < c.Retry.Base:
		return bad("Retry.Base", "want more than 0 and at most Retry.Max")
	case c.Retry.Jitter > 1:
		return bad("Retry.Jitter", "want at most 1")
	case c.InboxRetention < time.Hour:
		return bad("InboxRetention", "want at least 1 h")
	case c.PositionRetention < time.Hour:
		return bad("PositionRetention", "want at least 1 h")
	case !isGroup(c.GroupPrefix) && c.GroupPrefix != "":
		return bad("GroupPrefix", fmt.Sprintf("%q: want letters, digits, _ - %% |", c.GroupPrefix))
	}
	return nil
}

// after returns the wait that follows the given number of failed attempts.
func (p RetryPolicy) after(failed int) time.Duration {
	wait := p.Max
	if shift := failed - 1; shift < 40 && p.Base < p.Max>>shift {
		wait = p.Base << shift
	}
	if p.Jitter > 0 {
		wait -= time.Duration(rand.Float64() * p.Jitter * float64(wait)) //nolint:gosec // jitter needs no secrecy
	}
	return wait
}

func isGroup(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '%' || r == '|') {
			return false
		}
	}
	return s != "" && len(s) <= maxGroup
}
