package groupmember

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// reader reads one queue: it locks it if the group is serial, pulls its messages, has them handled, and stores the offset.
type reader struct {
	member *Member
	queue  Queue
	shared bool    // another member may have read the queue until now
	window *window // nil until the offset is known; set before placed is closed

	stop    chan struct{} // closed: no more messages are pulled or given to handlers
	stopped sync.Once
	placed  chan struct{} // closed once window is set
	handled chan struct{} // closed when no handler of the queue runs any more, after stop

	locking sync.Mutex   // held while the lock is got, renewed or released, and guards what follows
	asked   bool         // the lock was requested, so it may be held
	left    bool         // the lock was released for good
	locked  atomic.Int64 // when the lock was got or renewed, in nanoseconds since 1970
	storing sync.Mutex   // held while the offset is stored, and guards what follows
	stored  int64        // what the master knows; -1: unknown
	told    int64        // the connection to the master that knows it
	begun   bool         // the group has an offset, or had another one than 0

	// Used by place and pull alone.
	suspect *suspect  // a record that can't be decoded
	replica int       // which a broker suggested for the next pull
	behind  bool      // the master may have another offset of the group: a slave was read, a pull failed, or the group has stepped back
	moves   int       // how often in sequence the broker has named another offset in place of messages
	jumped  time.Time // when it was last logged that messages were passed over

	mu       sync.Mutex
	problem  error              // why the queue isn't read; nil: it is
	lockLost error              // why it isn't locked; nil: it is, or needs no lock
	pulling  context.CancelFunc // of the pull under way; nil: none
}

func newReader(m *Member, q Queue, shared bool) *reader {
	return &reader{member: m, queue: q, shared: shared, stop: make(chan struct{}), placed: make(chan struct{}), handled: make(chan struct{}), stored: -1}
}

func (r *reader) end() { r.stopped.Do(func() { close(r.stop) }) }

func (r *reader) ending() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

func (r *reader) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lockLost != nil {
		return r.lockLost
	}
	return r.problem
}

// run reads the queue until it is given up.
func (r *reader) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(func() { // requests end with the queue
		select {
		case <-r.stop:
		case <-ctx.Done():
		}
		cancel()
	})
	if r.member.config.Serial {
		r.retry(ctx, &r.lockLost, r.lock)
		parts.Go(func() { r.keepLock(ctx) })
	}
	if r.shared {
		background.Sleep(ctx, clock.System{}, takeOver)
	}
	r.retry(ctx, &r.problem, r.place)
	if r.window == nil { // given up before
		close(r.handled)
		parts.Wait()
		return
	}
	parts.Go(func() {
		defer close(r.handled)
		r.dispatch()
	})
	for ctx.Err() == nil {
		r.retry(ctx, &r.problem, r.pull)
	}
	r.end() // if the member was stopped without
	parts.Wait()
}

const (
	minRetry = 50 * time.Millisecond
	maxRetry = time.Second
)

// retry does something until it succeeds or ctx ends. why is where its error is kept meanwhile: what is done beside it has another.
func (r *reader) retry(ctx context.Context, why *error, do func(ctx context.Context) error) {
	for pause := minRetry; ; pause = min(2*pause, maxRetry) {
		err := do(ctx)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		*why = err
		r.mu.Unlock()
		if err == nil {
			return
		}
		if pause == minRetry {
			level := slog.LevelWarn
			var refused *remoting.ResponseError
			if errors.Is(err, broker.ErrUnavailable) && !errors.As(err, &refused) {
				level = slog.LevelDebug // the outage of a broker is one for all of its queues, and logged by the driver
			}
			r.member.config.Logger.Log(ctx, level, "queue can't be read; it is tried again", "group", r.member.config.Group, "topic", r.queue.Topic,
				"broker", r.queue.Broker, "queue", r.queue.ID, "error", err)
		}
		if !background.Sleep(ctx, clock.System{}, pause) {
			return
		}
	}
}

func (r *reader) request(code remoting.Code, more ...string) *remoting.Command {
	ext := map[string]string{
		"consumerGroup": r.member.config.Group, "topic": r.queue.Topic, "queueId": strconv.Itoa(r.queue.ID), "bname": r.queue.Broker,
	}
	for i := 0; i < len(more); i += 2 {
		ext[more[i]] = more[i+1]
	}
	return &remoting.Command{Code: code, Ext: ext}
}

func (r *reader) call(ctx context.Context, timeout time.Duration, replica int, request *remoting.Command) (*remoting.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return r.member.config.Network.Call(ctx, r.queue.Broker, replica, request)
}

// change is call for a request that changes something at the broker. It waits for the response whatever becomes of ctx: brokers
// handle requests in parallel, so one that was given up could take effect after a later one, and undo it.
func (r *reader) change(ctx context.Context, request *remoting.Command) (*remoting.Command, error) {
	return r.call(context.WithoutCancel(ctx), callTimeout, Master, request)
}

// place learns where the group goes on in the queue: behind what it has settled, or at the oldest message. While the master is away, that is
// where its slave knows that the group was.
func (r *reader) place(ctx context.Context) error {
	replica, connection := r.member.config.Network.Replica(r.queue.Broker, Master), r.member.config.Network.Connection(r.queue.Broker)
	answer, err := r.call(ctx, callTimeout, replica, r.request(remoting.QueryConsumerOffset, "setZeroIfNotFound", "false"))
	var refused *remoting.ResponseError
	offset := int64(0) // a broker that no longer has it names its oldest
	switch {
	case errors.As(err, &refused) && refused.Code == remoting.QueryNotFound:
	case err != nil:
		return fmt.Errorf("query offset: %w", err)
	default:
		if offset, err = number(answer, "offset"); err != nil {
			return fmt.Errorf("query offset: %w", err)
		}
		r.begun = true
		if offset >= 0 && replica == Master {
			r.stored, r.told = offset, connection
		}
		offset = max(offset, 0) // clients are known to store -1
	}
	if replica != Master {
		if offset == 0 { // it may not have its master's offsets
			return fmt.Errorf("%w: query offset: the master is away, and its slave knows no offset of the group", broker.ErrUnavailable)
		}
		r.behind = true
	}
	r.window = newWindow(offset, r.member.config.MaxBuffered, r.member.config.MaxBufferedBytes)
	close(r.placed)
	return nil
}

func number(answer *remoting.Command, name string) (int64, error) {
	n, err := strconv.ParseInt(answer.Ext[name], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w response: field %s is %.40q", remoting.ErrMalformed, name, answer.Ext[name])
	}
	return n, nil
}

// beginPull returns the context of a pull, which move ends. done must be called after the pull.
func (r *reader) beginPull(ctx context.Context) (pulling context.Context, done func()) {
	pulling, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pulling = cancel
	return pulling, func() {
		r.mu.Lock()
		r.pulling = nil
		r.mu.Unlock()
		cancel()
	}
}

// move continues at another offset at once. It returns false while it isn't known where the group goes on in the queue.
func (r *reader) move(offset int64) bool {
	select {
	case <-r.placed:
	default:
		return false
	}
	r.window.move(offset)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pulling != nil {
		r.pulling()
	}
	return true
}

// dispatch gives messages to handlers until the queue is given up, and waits for them.
func (r *reader) dispatch() {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		if r.ending() {
			return
		}
		if r.member.config.Serial && !r.holdsLock() {
			select {
			case <-time.After(retryInterval):
			case <-r.stop:
				return
			}
			continue
		}
		record, wait := r.window.take()
		if record == nil {
			select {
			case <-wait:
			case <-r.stop:
				return
			}
			continue
		}
		select {
		case r.member.config.Slots <- struct{}{}:
		case <-r.stop:
			return
		}
		handle := func() {
			settled := r.member.config.Handle(r.member.handlers, r.stop, Message{r.queue, record})
			<-r.member.config.Slots
			if settled {
				r.window.settle(record)
			}
		}
		if r.member.config.Serial {
			handle()
		} else {
			running.Go(handle)
		}
	}
}

// store stores the offset if the master may not know it. What fails is stored the next time.
func (r *reader) store(ctx context.Context) {
	select {
	case <-r.placed:
	default:
		return
	}
	_ = r.storeOffset(ctx, r.err() != nil)
}

// storeOffset stores the offset if the master doesn't know it or again is true. Behind another connection may be another master, which may
// have no offset of the group: it is told also where the group has not moved, for a group that begins at the newest message would find none,
// and begin again. So 0 is stored, too, for a group that has it, and when the queue has lost all its messages: the group would pass over
// those that take their places. The offset is read under the lock, so that of two calls the later one stores the later offset.
func (r *reader) storeOffset(ctx context.Context, again bool) error {
	r.storing.Lock()
	defer r.storing.Unlock()
	offset, connection := r.window.offset(), r.member.config.Network.Connection(r.queue.Broker)
	if offset == 0 && !r.begun || offset == r.stored && connection == r.told && !again {
		return nil
	}
	_, err := r.change(ctx, r.request(remoting.UpdateConsumerOffset, "commitOffset", strconv.FormatInt(offset, 10)))
	if err != nil {
		r.stored = -1
		return fmt.Errorf("store offset: %w", err)
	}
	r.stored, r.told, r.begun = offset, connection, true
	return nil
}

// isNew reports whether the master was not told the offset on a connection to it.
func (r *reader) isNew(connection int64) bool {
	r.storing.Lock()
	defer r.storing.Unlock()
	return r.told != connection
}

// leave stores the offset and releases the lock.
func (r *reader) leave(ctx context.Context) {
	r.store(ctx)
	r.locking.Lock()
	defer r.locking.Unlock()
	r.left = true
	if r.asked {
		_, _ = r.change(ctx, r.lockRequest(remoting.UnlockQueues)) // else it expires
	}
}
