package timeout

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/lease"
)

// sweepLeaseName is the name of the lease of the sweep, in the table lease.
const sweepLeaseName = "timeout sweep"

// minLeaseTTL is the shortest time for which the lease is taken. After its holder died the next timeout is not
// looked up for as long: the other schedulers sweep every SweepInterval meanwhile.
const minLeaseTTL = 4 * time.Second

// sweepLease is the lease whose holder looks for the time of the next timeout. The other schedulers sweep as well, but only
// every SweepInterval: rows are claimed, so two holders at once don't send a timeout twice.
type sweepLease struct {
	scheduler *Scheduler
	holder    uuid.UUID
	held      bool
	renewAt   time.Time // by Config.Clock
}

func (s *Scheduler) newSweepLease() *sweepLease { return &sweepLease{scheduler: s, holder: uuid.New()} }

func (l *sweepLease) ttl() time.Duration { return max(minLeaseTTL, 4*l.scheduler.cfg.SweepInterval) }

// renew renews the lease, or tries to take it, if a quarter of its time has passed.
func (l *sweepLease) renew(ctx context.Context) {
	c := l.scheduler.cfg
	now := c.Clock.Now()
	if now.Before(l.renewAt) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.SendTimeout)
	defer cancel()
	held, err := lease.Acquire(ctx, c.Pool, c.Schema, sweepLeaseName, l.holder, l.ttl())
	l.held, l.renewAt = held && err == nil, now.Add(l.ttl()/4) // the sweep reports that Postgres fails
}

// release lets another process take the lease at once. If it fails, the lease expires.
func (l *sweepLease) release() {
	if !l.held {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = lease.Release(ctx, l.scheduler.cfg.Pool, l.scheduler.cfg.Schema, sweepLeaseName, l.holder)
}
