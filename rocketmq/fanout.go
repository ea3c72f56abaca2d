package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// fanOut calls ask for each link, side by side, and returns the errors by link. It returns when all have answered, or a
// moment after the first that did, or when ctx ends: a broker that hangs keeps nobody from another. Who hasn't answered by
// then has an ErrUnavailable; its ask ends with the context that it got.
func (c *Client) fanOut(ctx context.Context, links []*link, ask func(context.Context, *link) error) map[*link]error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		link *link
		err  error
	}
	answers := make(chan answer, len(links))
	errs := make(map[*link]error, len(links))
	for _, l := range links {
		errs[l] = fmt.Errorf("%w: broker %s at %s doesn't answer", broker.ErrUnavailable, l.name, l.address)
		if !c.begin() {
			answers <- answer{l, errClientClosed}
			continue
		}
		go func() {
			defer c.work.Done()
			answers <- answer{l, ask(ctx, l)}
		}()
	}
	var moment <-chan time.Time
	for range links {
		select {
		case a := <-answers:
			errs[a.link] = a.err
			var refused *remoting.ResponseError
			if moment == nil && (a.err == nil || errors.As(a.err, &refused)) {
				moment = time.After(hedgeDelay)
			}
		case <-moment:
			return errs
		case <-ctx.Done():
			return errs
		}
	}
	return errs
}
