package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// member is a life of a process, here or as one of its own.
type member interface {
	do(ctx context.Context, t transaction) error
	await(ctx context.Context) error // until no transaction is left that do was called for
	arm(step string, nth int)        // dies when the step comes for the nth time
	disarm()
	cutPostgres(t trap)                          // at once if t isn't armed
	isolate(o rocketmqtest.Outage) (heal func()) // from the broker
	kill()
	dead() bool
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
			s.life = m
			s.mu.Unlock()
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
	once  sync.Once
}

func startInside(ctx context.Context, w *world, s settings) (member, error) {
	m := &inside{world: w, name: s.Name}
	p, err := startProcess(ctx, s, rocketflow.Clock(w.clock), func(*process) { m.kill() })
	if err != nil {
		return nil, err
	}
	m.process = p
	return m, nil
}

func (m *inside) kill() {
	m.once.Do(func() {
		m.client.dead.Store(true)
		m.gate.shutDown()
		heal := m.isolate(rocketmqtest.Refused)
		m.world.zombies.Go(func() {
			m.stop(time.Second)
			heal()
		})
	})
}

// await has nothing to wait for: here do returns when it is done.
func (m *inside) await(context.Context) error { return nil }

func (m *inside) dead() bool { return m.client.dead.Load() }

func (m *inside) disarm() {
	m.arm("", 0)
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
	m.once.Do(func() { m.stop(5 * time.Second) })
}
