package groupmember

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// lockRequest returns a request for, or to release, the lock of the queue.
func (r *reader) lockRequest(code remoting.Code) *remoting.Command {
	type name struct {
		Topic  string `json:"topic"`
		Broker string `json:"brokerName"`
		Queue  int    `json:"queueId"`
	}
	body, err := json.Marshal(map[string]any{
		"consumerGroup": r.member.config.Group, "clientId": r.member.config.ID,
		"mqSet": []name{{r.queue.Topic, r.queue.Broker, r.queue.ID}},
	})
	if err != nil {
		panic(err) // strings and numbers only
	}
	return &remoting.Command{Code: code, Ext: map[string]string{"bname": r.queue.Broker}, Body: body}
}

var (
	errLocked = errors.New("another member of the group holds the queue's lock")
	errLeft   = errors.New("the queue is given up")
)

// lock gets or renews the lock of the queue.
func (r *reader) lock(ctx context.Context) error {
	r.locking.Lock()
	defer r.locking.Unlock()
	if r.left {
		return errLeft
	}
	r.asked = true
	answer, err := r.change(ctx, r.lockRequest(remoting.LockQueues))
	if err != nil {
		return fmt.Errorf("lock queue: %w", err)
	}
	var granted struct {
		Queues []json.RawMessage `json:"lockOKMQSet"`
	}
	if err := remoting.DecodeJSON(answer.Body, &granted); err != nil {
		return fmt.Errorf("lock queue: %w", err)
	}
	if len(granted.Queues) == 0 {
		r.locked.Store(0)
		return errLocked
	}
	r.locked.Store(time.Now().UnixNano())
	return nil
}

// keepLock renews the lock until the queue is given up.
func (r *reader) keepLock(ctx context.Context) {
	for background.Sleep(ctx, clock.System{}, lockInterval) {
		r.retry(ctx, &r.lockLost, r.lock)
	}
}

func (r *reader) holdsLock() bool {
	return time.Since(time.Unix(0, r.locked.Load())) < lockValid
}
