package rocketmqtest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// queueName identifies a queue in lock requests. The queue need not exist.
type queueName struct {
	Topic  string `json:"topic"`
	Broker string `json:"brokerName"`
	Queue  int    `json:"queueId"`
}

// lock is a consumer's hold on a queue.
type lock struct {
	client  string
	renewed time.Time // in real time, as its holder lives in real time
}

// lockBody is the body of a lock or unlock request.
type lockBody struct {
	Group  string      `json:"consumerGroup"`
	Client string      `json:"clientId"`
	Queues []queueName `json:"mqSet"`
}

// decodeLock decodes the body of a lock or unlock request.
func decodeLock(body []byte) (lockBody, error) {
	var b lockBody
	if err := json.Unmarshal(body, &b); err != nil {
		return b, fmt.Errorf("%w lock: %w", remoting.ErrMalformed, err)
	}
	return b, nil
}

// lockQueues locks those queues that no other consumer of the group holds, and renews the consumer's own locks (41).
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

// unlockQueues releases locks of a consumer (42).
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

// holder returns the id of the client that holds the lock of a queue, or "".
func (s *Server) holder(g *group, q *queue) string {
	l := g.locks[queueName{Topic: q.topic.name, Broker: s.config.Name, Queue: q.id}]
	if s.expired(l, time.Now()) {
		return ""
	}
	return l.client
}

// expired reports whether a lock was not renewed in time.
func (s *Server) expired(l lock, now time.Time) bool {
	return now.Sub(l.renewed) > s.config.LockExpiry
}

// ordered reports whether a group consumes in order: one of its consumers holds a lock.
func (s *Server) ordered(g *group) bool {
	now := time.Now()
	for _, l := range g.locks {
		if !s.expired(l, now) {
			return true
		}
	}
	return false
}
