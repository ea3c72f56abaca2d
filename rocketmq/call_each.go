package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// callEach runs call for each connection concurrently and returns the errors by connection. It returns when all calls have
// returned, or hedgeDelay after the first broker responded, or when ctx ends: a broker that hangs delays the caller no longer. A
// call that has not returned by then has an error that matches broker.ErrUnavailable, and its context ends.
func (c *Client) callEach(ctx context.Context, conns []*brokerConn, call func(context.Context, *brokerConn) error) map[*brokerConn]error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn *brokerConn
		err  error
	}
	results := make(chan result, len(conns))
	errs := make(map[*brokerConn]error, len(conns))
	for _, b := range conns {
		errs[b] = fmt.Errorf("%w: broker %s at %s doesn't answer", broker.ErrUnavailable, b.name, b.address)
		if !c.goWork(func() { results <- result{b, call(ctx, b)} }) {
			results <- result{b, errClientClosed}
		}
	}
	var late <-chan time.Time
	for range conns {
		select {
		case r := <-results:
			errs[r.conn] = r.err
			var refused *remoting.ResponseError
			if late == nil && (r.err == nil || errors.As(r.err, &refused)) {
				late = time.After(hedgeDelay)
			}
		case <-late:
			return errs
		case <-ctx.Done():
			return errs
		}
	}
	return errs
}
