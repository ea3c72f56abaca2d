package rocketmqtest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// queueName names a queue, which need not exist: a broker locks what it is asked to.
type queueName struct {
	Topic  string `json:"topic"`
	Broker string `json:"brokerName"`
	Queue  int    `json:"queueId"`
}

// lock is a consumer's hold on a queue.
type lock struct {
	client  string
	renewed time.Time // by the machine's clock: who holds it lives in the machine's time
}

// lockBody is what a consumer wants to hold, or no longer.
type lockBody struct {
	Group  string      `json:"consumerGroup"`
	Client string      `json:"clientId"`
	Queues []queueName `json:"mqSet"`
}

func decodeLock(body []byte) (lockBody, error) {
	var b lockBody
	if err := json.Unmarshal(body, &b); err != nil {
		return b, fmt.Errorf("%w lock: %w", remoting.ErrMalformed, err)
	}
	return b, nil
}

// lockQueues gives a consumer those of the queues that no other of its group holds, and renews what it holds (41).
func (s *Server) lockQueues(r *request) *remoting.Command {
	b, err := decodeLock(r.Body)
	if err != nil {
		return r.refuse(remoting.SystemError, "%v", err)
	}
	g, now := s.group(b.Group), time.Now()
	held := []queueName{}
	for _, q := range b.Queues {
		if l, locked := g.locks[q]; !locked || l.client == b.Client || s.expired(l, now) {
			g.locks[q] = lock{client: b.Client, renewed: now}
			held = append(held, q)
		}
	}
	return r.respondJSON(map[string][]queueName{"lockOKMQSet": held})
}

// unlockQueues lets go of what a consumer holds (42).
func (s *Server) unlockQueues(r *request) *remoting.Command {
	b, err := decodeLock(r.Body)
	if err != nil {
		return r.refuse(remoting.SystemError, "%v", err)
	}
	if g := s.groups[b.Group]; g != nil {
		for _, q := range b.Queues {
			if g.locks[q].client == b.Client {
				delete(g.locks, q)
			}
		}
	}
	return r.respond()
}

// holder is the client that holds a queue, or "".
func (s *Server) holder(g *group, q *queue) string {
	l := g.locks[queueName{Topic: q.topic.name, Broker: s.config.Name, Queue: q.id}]
	if s.expired(l, time.Now()) {
		return ""
	}
	return l.client
}

func (s *Server) expired(l lock, now time.Time) bool {
	return now.Sub(l.renewed) > s.config.LockExpiry
}

// ordered tells whether a consumer of the group holds a queue: the group consumes in order.
func (s *Server) ordered(g *group) bool {
	now := time.Now()
	for _, l := range g.locks {
		if !s.expired(l, now) {
			return true
		}
	}
	return false
}
