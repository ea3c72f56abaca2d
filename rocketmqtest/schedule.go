package rocketmqtest

import (
	"container/heap"
	"time"
)

// schedule is what is to be done at instants of the server's clock, in their order and then in the order of entry.
type schedule struct {
	items []*task
	count int
}

type task struct {
	due   time.Time
	order int
	do    func()
}

func (a *schedule) Len() int { return len(a.items) }
func (a *schedule) Less(i, j int) bool {
	if !a.items[i].due.Equal(a.items[j].due) {
		return a.items[i].due.Before(a.items[j].due)
	}
	return a.items[i].order < a.items[j].order
}
func (a *schedule) Swap(i, j int) { a.items[i], a.items[j] = a.items[j], a.items[i] }
func (a *schedule) Push(x any)    { a.items = append(a.items, x.(*task)) }
func (a *schedule) Pop() any {
	last := a.items[len(a.items)-1]
	a.items[len(a.items)-1] = nil
	a.items = a.items[:len(a.items)-1]
	return last
}

// at has do called, with s.mu held, when the clock has reached due. It is called with s.mu held. Nothing is ever taken
// off: do has to see for itself whether it is still wanted.
func (s *Server) at(due time.Time, do func()) {
	s.schedule.count++
	heap.Push(&s.schedule, &task{due: due, order: s.schedule.count, do: do})
	if s.schedule.items[0].order == s.schedule.count { // first of all now
		s.wakeScheduler()
	}
}

// wakeScheduler has keepTime look again.
func (s *Server) wakeScheduler() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// runDue does what is due by now, and returns when the next is due, or the zero time if there is none or the broker
// doesn't run. It is called with s.mu held.
func (s *Server) runDue() time.Time {
	if s.stopped || s.paused || s.closed {
		return time.Time{}
	}
	now := s.clock.Now()
	for s.schedule.Len() > 0 && !s.schedule.items[0].due.After(now) {
		heap.Pop(&s.schedule).(*task).do()
		s.changed()
	}
	if s.schedule.Len() == 0 {
		return time.Time{}
	}
	return s.schedule.items[0].due
}

// runSchedule is the goroutine that runs the agenda until Close.
func (s *Server) runSchedule() {
	for {
		s.mu.Lock()
		next := s.runDue()
		s.mu.Unlock()
		var fired <-chan time.Time
		stop := func() {}
		if !next.IsZero() {
			fired, stop = s.clock.After(next.Sub(s.clock.Now()))
		}
		select {
		case <-fired:
		case <-s.wake:
		case <-s.closing:
			stop()
			return
		}
		stop()
	}
}

// FastForward moves the clock ahead by d. What is due by then, timers, delayed messages, one round of checks, is done
// when it returns, or if the broker is stopped or paused when it runs again. Clients and their connections live on in the
// machine's time: they don't appear to have been silent, nor do they lose their locks, and a message that says it was born
// now is as young as it says.
func (s *Server) FastForward(d time.Duration) {
	s.clock.Advance(d)
	s.RunDue()
}

// RunDue does at once what is due by the clock: for those who share one ([Config].Clock) and moved it themselves.
func (s *Server) RunDue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runDue()
}

// Clock is the server's clock.
func (s *Server) Clock() *Clock { return s.clock }
