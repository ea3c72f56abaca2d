package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// instance is a running process of a world: simulated inside this one, or a child process.
type instance interface {
	do(ctx context.Context, t transaction) error
	await(ctx context.Context) error // returns when all transactions of do have ended
	arm(a action, step string, nth int)
	disarm()
	cutPostgres(t connFault)                     // at once if t.left is 0
	isolate(o rocketmqtest.Outage) (heal func()) // from the broker
	kill()
	hasEnded() bool
	frozen() bool            // at a step that was armed with freeze
	thaw()                   // does nothing if it isn't frozen
	release(schedule uint64) // ends the hanging of its handlers for a schedule's events
	hanging() int            // the number of handlers that hang; 0 for a child process, which doesn't report it
	err() string             // Router.Err as text; empty for a child process, which doesn't report it
	close()
}

// processSlot is one process of a world. Its instances follow each other: a crashed one is replaced by the next.
type processSlot struct {
	world    *world
	name     string
	settings settings
	starts   int

	mu       sync.Mutex
	running  instance // nil before the first start
	lastName string   // its name
}

// instanceName returns the name of the running or last instance.
func (s *processSlot) instanceName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastName
}

func (s *processSlot) current() instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// restartEnded starts an instance if none runs.
func (s *processSlot) restartEnded(ctx context.Context) error {
	if m := s.current(); m != nil && !m.hasEnded() {
		return nil
	}
	limit := time.Now().Add(tryFor)
	for {
		s.starts++
		config := s.settings
		config.Name = fmt.Sprintf("%s-%d-", s.name, s.starts)
		attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
		var m instance
		var err error
		if s.world.server != nil {
			m, err = startInProcess(attempt, s.world, config)
		} else {
			m, err = startChild(attempt, s.world, config)
		}
		cancel()
		if err == nil {
			s.mu.Lock()
			s.running, s.lastName = m, config.Name
			s.mu.Unlock()
			s.world.started(config)
			return nil
		}
		if ctx.Err() != nil || time.Now().After(limit) {
			return fmt.Errorf("start %s: %w", config.Name, err)
		}
		time.Sleep(50 * time.Millisecond) // Postgres or the broker are away
	}
}

func (s *processSlot) close() {
	if m := s.current(); m != nil {
		m.close()
	}
}

// inProcessInstance is a process that is simulated inside this one. A crash cuts it off from Postgres and the broker at once;
// its goroutines are stopped afterwards in the background.
type inProcessInstance struct {
	*process
	world *world
	name  string
	ended atomic.Bool    // kill or close was called
	doing sync.WaitGroup // transactions

	freezing sync.Mutex
	reheal   func() // undoes the freeze; nil: not frozen
}

func startInProcess(ctx context.Context, w *world, s settings) (instance, error) {
	m := &inProcessInstance{world: w, name: s.Name}
	p, err := startProcess(ctx, s, rocketflow.Clock(w.clock), hooks{
		do:                map[action]func(*process){crash: func(*process) { m.kill() }, freeze: func(*process) { m.freeze() }},
		recordAfterCommit: w.recordAfterCommit,
	})
	if err != nil {
		return nil, err
	}
	m.process = p
	return m, nil
}

// kill doesn't wait: the process may call it itself, also while it is closed.
func (m *inProcessInstance) kill() {
	first := m.ended.CompareAndSwap(false, true)
	if m.client.crashed.Swap(true) {
		return
	}
	m.pgLink.shutDown()
	if !first {
		return // close clears away
	}
	m.thaw()
	heal := m.isolate(rocketmqtest.Refused)
	m.world.cleanups.Go(func() {
		m.stop(time.Second)
		heal()
	})
}

// do also returns when ctx ends and the process is frozen: a frozen process doesn't notice.
func (m *inProcessInstance) do(ctx context.Context, t transaction) error {
	done := make(chan error, 1)
	m.doing.Go(func() { done <- m.process.do(ctx, t) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		if m.frozen() {
			return ctx.Err()
		}
		return <-done
	}
}

func (m *inProcessInstance) await(context.Context) error {
	m.doing.Wait()
	return nil
}

// freeze blocks the process's traffic with Postgres and the broker. Its sessions stay open, so both regard it as alive.
func (m *inProcessInstance) freeze() {
	m.freezing.Lock()
	defer m.freezing.Unlock()
	if m.reheal != nil || m.hasEnded() {
		return
	}
	m.pgLink.freeze()
	m.reheal = m.isolate(rocketmqtest.Silent)
}

func (m *inProcessInstance) frozen() bool {
	m.freezing.Lock()
	defer m.freezing.Unlock()
	return m.reheal != nil
}

func (m *inProcessInstance) thaw() {
	m.freezing.Lock()
	defer m.freezing.Unlock()
	if m.reheal != nil {
		m.reheal()
		m.pgLink.thaw()
		m.reheal = nil
	}
}

func (m *inProcessInstance) hasEnded() bool { return m.client.crashed.Load() }

func (m *inProcessInstance) disarm() {
	m.arm(crash, "", 0)
	m.pgLink.arm(connFault{})
}

func (m *inProcessInstance) cutPostgres(t connFault) {
	if t.left == 0 {
		m.pgLink.cut()
		return
	}
	m.pgLink.arm(t)
}

func (m *inProcessInstance) isolate(o rocketmqtest.Outage) (heal func()) {
	return m.world.server.Partition(func(client string) bool { return strings.Contains(client, m.name) }, o)
}

func (m *inProcessInstance) close() {
	if m.ended.CompareAndSwap(false, true) {
		m.stop(5 * time.Second)
		m.client.crashed.Store(true)
	}
}
