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

// member is a life of a process, here or as one of its own.
type member interface {
	do(ctx context.Context, t transaction) error
	await(ctx context.Context) error // until no transaction is left that do was called for
	arm(a action, step string, nth int)
	disarm()
	cutPostgres(t trap)                          // at once if t isn't armed
	isolate(o rocketmqtest.Outage) (heal func()) // from the broker
	kill()
	dead() bool
	frozen() bool            // since a step that was armed for that
	thaw()                   // nothing if it isn't frozen
	release(schedule uint64) // its handlers that hang
	hanging() int            // how many of them do, as far as that can be seen from here
	err() string             // of its router, as far as that can be seen from here
	close()
}

// slot is where one life of a process follows the other.
type slot struct {
	world    *world
	name     string
	settings settings
	lives    int

	mu   sync.Mutex
	life member // nil: none yet
	last string // its name
}

// lifeName is the name of the present or last life.
func (s *slot) lifeName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *slot) member() member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

// revive begins a new life if there is none.
func (s *slot) revive(ctx context.Context) error {
	if m := s.member(); m != nil && !m.dead() {
		return nil
	}
	limit := time.Now().Add(tryFor)
	for {
		s.lives++
		config := s.settings
		config.Name = fmt.Sprintf("%s-%d-", s.name, s.lives)
		attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
		var m member
		var err error
		if s.world.server != nil {
			m, err = startInside(attempt, s.world, config)
		} else {
			m, err = startChild(attempt, s.world, config)
		}
		cancel()
		if err == nil {
			s.mu.Lock()
			s.life, s.last = m, config.Name
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

func (s *slot) close() {
	if m := s.member(); m != nil {
		m.close()
	}
}

// inside is a process within this one. It dies by being cut off from everything at once; what is left of it is cleared
// away behind.
type inside struct {
	*process
	world *world
	name  string
	ended atomic.Bool    // kill or close was called
	doing sync.WaitGroup // transactions

	freezing sync.Mutex
	reheal   func() // undoes the freeze; nil: not frozen
}

func startInside(ctx context.Context, w *world, s settings) (member, error) {
	m := &inside{world: w, name: s.Name}
	p, err := startProcess(ctx, s, rocketflow.Clock(w.clock), hooks{
		do:       map[action]func(*process){die: func(*process) { m.kill() }, freeze: func(*process) { m.freeze() }},
		announce: w.announce,
	})
	if err != nil {
		return nil, err
	}
	m.process = p
	return m, nil
}

// kill doesn't wait: the process may call it itself, also while it is closed.
func (m *inside) kill() {
	first := m.ended.CompareAndSwap(false, true)
	if m.client.dead.Swap(true) {
		return
	}
	m.gate.shutDown()
	if !first {
		return // close clears away
	}
	m.thaw()
	heal := m.isolate(rocketmqtest.Refused)
	m.world.zombies.Go(func() {
		m.stop(time.Second)
		heal()
	})
}

// do returns when ctx ends, too: a frozen process doesn't heed it.
func (m *inside) do(ctx context.Context, t transaction) error {
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

func (m *inside) await(context.Context) error {
	m.doing.Wait()
	return nil
}

// freeze stops all that the process does with Postgres and the broker, which see it alive: its sessions stay.
func (m *inside) freeze() {
	m.freezing.Lock()
	defer m.freezing.Unlock()
	if m.reheal != nil || m.dead() {
		return
	}
	m.gate.freeze()
	m.reheal = m.isolate(rocketmqtest.Silent)
}

func (m *inside) frozen() bool {
	m.freezing.Lock()
	defer m.freezing.Unlock()
	return m.reheal != nil
}

func (m *inside) thaw() {
	m.freezing.Lock()
	defer m.freezing.Unlock()
	if m.reheal != nil {
		m.reheal()
		m.gate.thaw()
		m.reheal = nil
	}
}

func (m *inside) dead() bool { return m.client.dead.Load() }

func (m *inside) disarm() {
	m.arm(die, "", 0)
	m.gate.arm(trap{})
}

func (m *inside) cutPostgres(t trap) {
	if t.left == 0 {
		m.gate.cut()
		return
	}
	m.gate.arm(t)
}

func (m *inside) isolate(o rocketmqtest.Outage) (heal func()) {
	return m.world.server.Cut(func(client string) bool { return strings.Contains(client, m.name) }, o)
}

func (m *inside) close() {
	if m.ended.CompareAndSwap(false, true) {
		m.stop(5 * time.Second)
		m.client.dead.Store(true)
	}
}
