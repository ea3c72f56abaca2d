package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-client-go/v2"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// postponed is what could not be done when it was asked for, because no broker was there (Config.AwaitBroker).
type postponed struct {
	mu   sync.Mutex
	jobs []*job
	wake chan struct{} // holds one sign that there is a job
}

type job struct {
	what string
	do   func(ctx context.Context) error
	err  error
}

const (
	minAwait     = 200 * time.Millisecond
	maxAwait     = time.Second
	awaitTimeout = 15 * time.Second // for one try of a job
)

// postpone returns err unless it says that no broker is there and the configuration says to wait for one: then do is
// tried until it succeeds, and Ping tells why it doesn't.
func (c *Client) postpone(what string, err error, do func(ctx context.Context) error) error {
	if err == nil || !c.config.AwaitBroker || !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrRejected) {
		return err
	}
	c.log.Warn("no broker can be reached: this is done when one comes", "what", what, "error", err)
	c.postponed.mu.Lock()
	defer c.postponed.mu.Unlock()
	c.postponed.jobs = append(c.postponed.jobs, &job{what: what, do: do, err: err})
	select {
	case c.postponed.wake <- struct{}{}:
	default:
	}
	return nil
}

// await does what was postponed, in order, until ctx ends.
func (c *Client) await(ctx context.Context) {
	p := &c.postponed
	for {
		select {
		case <-p.wake:
		case <-ctx.Done():
			return
		}
		for try := 0; c.catchUp(ctx) > 0; try++ {
			select {
			case <-time.After(backoff(try, minAwait, maxAwait)):
			case <-ctx.Done():
				return
			}
		}
	}
}

// catchUp tries each job once, and returns how many are left.
func (c *Client) catchUp(ctx context.Context) (left int) {
	p := &c.postponed
	p.mu.Lock()
	jobs := slices.Clone(p.jobs)
	p.mu.Unlock()
	for _, j := range jobs {
		one, cancel := context.WithTimeout(ctx, awaitTimeout)
		err := j.do(one)
		cancel()
		if ctx.Err() != nil {
			return 0
		}
		p.mu.Lock()
		was := j.err
		j.err = err
		if err == nil {
			p.jobs = slices.DeleteFunc(p.jobs, func(other *job) bool { return other == j })
		}
		left = len(p.jobs)
		p.mu.Unlock()
		switch {
		case err == nil:
			c.log.Info("done now that a broker is there", "what", j.what)
		case errors.Is(err, broker.ErrRejected) && fmt.Sprint(was) != err.Error():
			c.log.Error("a broker is there, and refuses", "what", j.what, "error", err)
		}
	}
	return left
}

// waiting says what is postponed, and why.
func (c *Client) waiting() error {
	c.postponed.mu.Lock()
	defer c.postponed.mu.Unlock()
	var errs []error
	for _, j := range c.postponed.jobs {
		errs = append(errs, printable.Errorf("%s: %w", j.what, j.err))
	}
	return errors.Join(errs...)
}

// unlisted makes of a topic that isn't found one that can't be known: while no broker is up the name servers know none.
func (c *Client) unlisted(err error) error {
	if errors.Is(err, broker.ErrTopicNotFound) && !c.anyUp() {
		return printable.Errorf("%w: no broker is up: %v", broker.ErrUnavailable, err)
	}
	return err
}

func (c *Client) anyUp() bool {
	return slices.ContainsFunc(c.allLinks(), func(l *link) bool { return l.down() == nil })
}

func (c *Client) sender() rmq.Producer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.producer
}
