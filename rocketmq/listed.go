package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// joinPoll is the pause between two checks whether a broker lists a new instance.
const joinPoll = 20 * time.Millisecond

// awaitListed returns nil once a broker lists an instance in the group, or an error when ctx ends first.
func (k *consumer) awaitListed(ctx context.Context, i instance) error {
	for {
		listed, err := k.listed(ctx, i)
		if listed {
			return nil
		}
		if !background.Sleep(ctx, clock.System{}, joinPoll) {
			if err == nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("%w: no broker lists the consumer: %w", broker.ErrUnavailable, err)
		}
	}
}

// listed reports whether a broker lists an instance in the group. If none does the error says why some didn't respond.
func (k *consumer) listed(ctx context.Context, i instance) (bool, error) {
	k.mu.Lock()
	brokers := k.brokers
	k.mu.Unlock()
	var conns []*brokerConn
	for _, name := range brokers {
		if b := k.client.brokerConn(name); b != nil {
			conns = append(conns, b)
		}
	}
	var listed atomic.Bool
	errs := k.client.callEach(ctx, conns, func(ctx context.Context, b *brokerConn) error {
		ids, err := b.members(ctx, k.subscription.Group)
		if slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(id, i.id()) }) {
			listed.Store(true)
		}
		return err
	})
	if listed.Load() {
		return true, nil
	}
	return false, errors.Join(slices.Collect(maps.Values(errs))...)
}

// members returns the client ids of the consumers that the broker lists in a group.
func (b *brokerConn) members(ctx context.Context, group string) ([]string, error) {
	response, err := b.call(ctx, &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{"consumerGroup": group}})
	var refused *remoting.ResponseError
	if errors.As(err, &refused) && refused.Code == remoting.SystemError {
		return nil, nil // the group has no consumer there
	}
	if err != nil {
		return nil, err
	}
	return remoting.DecodeMembers(response.Body)
}
