package groupmember

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Network is how a member reaches the name servers and brokers.
type Network interface {
	// Queues returns the queues of a topic that can be read, of all brokers.
	Queues(ctx context.Context, topic string) ([]Queue, error)

	// Replica returns which replica of a broker answers questions: the preferred one if it can be reached, else the master, else a
	// slave that can be reached, else the master.
	Replica(broker string, preferred int) int

	// Call sends a request to a replica of a broker and waits for the response. A response other than success is returned
	// together with a *remoting.ResponseError. While the replica can't be reached Call fails at once.
	Call(ctx context.Context, broker string, replica int, request *remoting.Command) (*remoting.Command, error)

	// Connection returns the number of the present connection to a broker's master. It is another one for each connection: behind a new one
	// may be a new master. 0: there is none.
	Connection(broker string) int64
}

// Master is the number of a broker's master among its replicas. All changes go to it, and locks: slaves have copies.
const Master = 0

// Message is a message of one of the member's queues.
type Message struct {
	Queue
	*remoting.Record
}

// Config configures a Member.
type Config struct {
	Network Network  // required
	Group   string   // the name of the consumer group; required
	ID      string   // the client id under which the brokers list the member; unique in the group; required
	Topics  []string // required

	// Serial has one message of a queue at a time handled, in the order of the queue. The member then holds a lock for each
	// of its queues.
	Serial bool

	// Slots limits how many handlers run at once: each takes a place in the channel. Required.
	Slots chan struct{}

	MaxBuffered      int // how many messages of a queue are held. Defaults to 1024.
	MaxBufferedBytes int // bytes of their bodies. Defaults to 32 MiB.

	// Handle handles a message and returns true when it is settled for the group. It returns false, without having settled
	// it, when stop is closed and the message can be left to the next reader of the queue. ctx ends when the context of Stop
	// does.
	Handle func(ctx context.Context, stop <-chan struct{}, m Message) bool

	Logger *slog.Logger // required
}

// Times of the protocol.
const (
	rebalanceInterval = 20 * time.Second // between looks at the group and the topics, as in RocketMQ's own clients
	retryInterval     = 200 * time.Millisecond
	storeInterval     = 5 * time.Second
	pullHold          = 15 * time.Second // how long a broker holds a pull for which it has no message
	holdSlack         = 5 * time.Second  // how much longer it may hold it: a broker looks at held pulls every 5 s (PullRequestHoldService)
	callTimeout       = 3 * time.Second
	takeOver          = 300 * time.Millisecond // how long the new reader of a queue gives the former one to store its offset
	lockInterval      = 20 * time.Second       // brokers drop a lock that was not renewed for 60 s
	lockValid         = 40 * time.Second
	handOver          = 3 * time.Second // how long a queue that is given up waits for its handlers before its offset is stored
)

// Member is a member of a consumer group. It is made by New, runs from Start to Stop, and isn't started again.
type Member struct {
	config Config
	group  background.Group
	wake   chan struct{}
	joined time.Time

	handlers       context.Context // of Handle; ends when the context of Stop does
	cancelHandlers context.CancelFunc

	mu       sync.Mutex
	stopping bool
	readers  map[Queue]*reader // a queue that is given up stays until its offset was stored
	problems map[string]error  // why the queues of a topic could not be divided, by topic
}

// New returns a Member that isn't started.
func New(c Config) *Member {
	c.MaxBuffered = cmp.Or(c.MaxBuffered, 1024)
	c.MaxBufferedBytes = cmp.Or(c.MaxBufferedBytes, 32<<20)
	m := &Member{config: c, wake: make(chan struct{}, 1), joined: time.Now(), readers: map[Queue]*reader{}, problems: map[string]error{}}
	m.handlers, m.cancelHandlers = context.WithCancel(context.Background())
	return m
}

// Start begins to read. It returns at once; Err returns why queues aren't read.
func (m *Member) Start() {
	_ = m.group.Start(context.Background(), func(context.Context) error { // begin never fails
		m.group.Go(func(ctx context.Context) {
			background.Loop{Clock: clock.System{}, Wake: m.wake}.Run(ctx, m.rebalance)
		})
		m.group.Go(func(ctx context.Context) {
			background.Loop{Clock: clock.System{}}.Every(ctx, storeInterval, m.storeAll)
		})
		return nil
	})
}

// Rebalance has the member look at once which queues are its own. Call it when a broker reports that the group changed,
// and when a connection was made.
func (m *Member) Rebalance() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Stop stops reading, waits for the handlers that run until ctx ends, and stores the offsets. If ctx ends first, the
// handlers' context ends, and their messages come again.
func (m *Member) Stop(ctx context.Context) error {
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	readers := m.all()
	for _, r := range readers {
		r.end()
	}
	var waiting sync.WaitGroup
	for _, r := range readers {
		waiting.Go(func() { <-r.handled })
	}
	err := background.Wait(ctx, &waiting)
	m.cancelHandlers()
	store, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	var storing sync.WaitGroup
	for _, r := range readers {
		storing.Go(func() { r.leave(store) })
	}
	storing.Wait()
	return errors.Join(err, m.group.Stop(ctx))
}

// Err returns why queues aren't read at present, or nil.
func (m *Member) Err() error {
	m.mu.Lock()
	errs := slices.Collect(maps.Values(m.problems))
	m.mu.Unlock()
	for _, r := range m.all() {
		if err := r.err(); err != nil {
			errs = append(errs, fmt.Errorf("queue %d of topic %s on broker %s: %w", r.queue.ID, r.queue.Topic, r.queue.Broker, err))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// Queues returns the queues that the member reads.
func (m *Member) Queues() []Queue {
	var queues []Queue
	for _, r := range m.all() {
		if !r.ending() {
			queues = append(queues, r.queue)
		}
	}
	slices.SortFunc(queues, compareQueues)
	return queues
}

// Position is how far the member has come in a queue.
type Position struct {
	Queue
	Offset int64 // of the oldest message that isn't settled
	Next   int64 // the offset that is pulled next
	Held   int   // how many messages wait in memory or are being handled
	Locked bool  // the member holds the lock of the queue; false if it isn't serial
}

// Positions returns the position in each queue of which it is known where the group goes on, sorted by queue.
func (m *Member) Positions() []Position {
	var positions []Position
	for _, r := range m.all() {
		select {
		case <-r.placed:
			positions = append(positions, Position{r.queue, r.window.offset(), r.window.pulledTo(), r.window.held(), m.config.Serial && r.holdsLock()})
		default:
		}
	}
	slices.SortFunc(positions, func(a, b Position) int { return compareQueues(a.Queue, b.Queue) })
	return positions
}

// Move continues at another offset of a queue, at an operator's request. Forward, the messages that wait in memory are still handled.
// It returns false if the member doesn't read the queue.
func (m *Member) Move(q Queue, offset int64) bool {
	m.mu.Lock()
	r := m.readers[q]
	m.mu.Unlock()
	return r != nil && !r.ending() && offset >= 0 && r.move(offset)
}

func (m *Member) all() []*reader {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.readers))
}

// rebalance divides the queues of each topic among the members, and returns when to do so again.
func (m *Member) rebalance(ctx context.Context) time.Duration {
	pause := rebalanceInterval
	for _, topic := range m.config.Topics {
		settled, err := m.rebalanceTopic(ctx, topic)
		if ctx.Err() != nil {
			return pause
		}
		if err != nil {
			m.config.Logger.Warn("queues of a topic can't be divided among the group; those that are read go on, and it is tried again",
				"group", m.config.Group, "topic", topic, "error", err)
		}
		if !settled {
			pause = retryInterval
		}
		m.mu.Lock()
		if err != nil {
			m.problems[topic] = err
		} else {
			delete(m.problems, topic)
		}
		m.mu.Unlock()
	}
	return pause
}

// rebalanceTopic returns whether the member reads the queues of the topic that are its own. If it can't be known which
// they are, it goes on with those that it reads.
func (m *Member) rebalanceTopic(ctx context.Context, topic string) (settled bool, err error) {
	one, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	queues, err := m.config.Network.Queues(one, topic)
	if err != nil {
		return false, err
	}
	members, err := m.members(one, queues)
	if err != nil {
		return false, err
	}
	if !slices.Contains(members, m.config.ID) {
		return false, nil // the heartbeat that tells the broker is under way
	}
	return m.assign(topic, Allocate(queues, members, m.config.ID), len(members) > 1), nil
}

// members returns the ids of the group's members by the first broker that answers, or by a slave while its master is away. All list the
// same, but for moments.
func (m *Member) members(ctx context.Context, queues []Queue) ([]string, error) {
	brokers := map[string]bool{}
	for _, q := range queues {
		brokers[q.Broker] = true
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(brokers)) {
		answer, err := m.config.Network.Call(ctx, name, m.config.Network.Replica(name, Master), &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{
			"consumerGroup": m.config.Group, "bname": name,
		}})
		var refused *remoting.ResponseError
		if errors.As(err, &refused) && refused.Code == remoting.SystemError {
			return nil, nil // nobody yet
		}
		var ids []string
		if err == nil {
			ids, err = remoting.DecodeMembers(answer.Body)
		}
		if err == nil {
			return ids, nil
		}
		errs = append(errs, fmt.Errorf("list members at broker %s: %w", name, err))
	}
	if len(errs) == 0 {
		return nil, errors.New("the topic has no queue that can be read")
	}
	return nil, errors.Join(errs...)
}

// assign starts to read what is newly the member's, and gives up the rest of the topic. shared: the group has other members,
// who may have read the queues until now. false: a queue is still being given up that has come back.
func (m *Member) assign(topic string, own []Queue, shared bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopping {
		return true
	}
	all := true
	for q, r := range m.readers {
		if q.Topic == topic && !slices.Contains(own, q) && !r.ending() {
			r.end()
			m.group.Go(func(ctx context.Context) { m.handOver(ctx, r) })
		}
	}
	for _, q := range own {
		switch r := m.readers[q]; {
		case r == nil:
			r = newReader(m, q, shared)
			if m.group.Go(r.run) {
				m.readers[q] = r
			}
		case r.ending():
			all = false
		}
	}
	return all
}

// handOver gives the handlers of a queue a moment before its offset is stored: what they settle then isn't handled again
// by the queue's next reader.
func (m *Member) handOver(ctx context.Context, r *reader) {
	patience := time.NewTimer(handOver)
	defer patience.Stop()
	select {
	case <-r.handled:
	case <-patience.C:
	case <-ctx.Done():
	}
	store, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	r.leave(store)
	m.mu.Lock()
	delete(m.readers, r.queue)
	m.mu.Unlock()
	m.Rebalance()
}

// storeAll stores the offsets that have changed.
func (m *Member) storeAll(ctx context.Context) {
	for _, r := range m.all() {
		r.store(ctx)
	}
}
