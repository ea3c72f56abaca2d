package rocketmqtest

import (
	"container/heap"
	"context"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
)

// schedule is a heap of tasks, ordered by due time and then by insertion. It implements heap.Interface.
type schedule struct {
	items []*task
	count int
}

// task is a function to call at an instant of the server's clock.
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

// at schedules do for an instant. Both at and do are called with s.mu held. A task can't be removed: do has to check whether
// it is still needed.
func (s *Server) at(due time.Time, do func()) {
	s.schedule.count++
	heap.Push(&s.schedule, &task{due: due, order: s.schedule.count, do: do})
	if s.schedule.items[0].order == s.schedule.count { // the new task is the first
		s.wakeScheduler()
	}
}

// wakeScheduler makes runSchedule check the schedule again.
func (s *Server) wakeScheduler() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// runDue runs the tasks that are due, and returns when the next is due: the zero time if there is none or the broker does
// not run. It is called with s.mu held.
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

// maxPause is how long runSchedule pauses while no task is scheduled.
const maxPause = time.Hour

// runSchedule runs the tasks as they fall due, until ctx ends.
func (s *Server) runSchedule(ctx context.Context) {
	background.Loop{Clock: s.clock, Wake: s.wake}.Run(ctx, func(context.Context) time.Duration {
		s.mu.Lock()
		next := s.runDue()
		s.mu.Unlock()
		if next.IsZero() {
			return maxPause
		}
		return next.Sub(s.clock.Now())
	})
}

// FastForward moves the clock ahead by d and runs what is due by then: timers, delayed messages, one round of check-backs. It
// has run when FastForward returns; if the broker is stopped or paused, it runs when the broker runs again. Clients are not
// affected: their connections, heartbeats and locks follow real time, and the born timestamps of their messages are
// translated to the moved clock.
func (s *Server) FastForward(d time.Duration) {
	s.clock.Advance(d)
	s.RunDue()
}

// RunDue runs what is due by the clock now. Call it after moving a clock that is shared by [Config].Clock; FastForward
// includes it.
func (s *Server) RunDue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runDue()
}

// Clock returns the server's clock.
func (s *Server) Clock() *Clock { return s.clock }
