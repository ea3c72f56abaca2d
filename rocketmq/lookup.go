package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// probeTopic is asked for to see whether a name server answers. Most have it, and one that doesn't says so.
const probeTopic = "TBW102"

// find looks up the hosts of the name servers and asks each of their addresses, all side by side. It returns when each has
// answered or failed, or a moment after the first has answered, or with ctx, and fails if none has answered.
func (n *nameServers) find(ctx context.Context) error {
	answered, done := make(chan struct{}, 1), make(chan error, 1)
	n.begin(func() { done <- n.tryAll(answered) }, func() { done <- errClientClosed })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return printable.Errorf("%w: name servers %v: no answer: %w", broker.ErrUnavailable, n.configured, context.Cause(ctx))
	case <-answered:
	}
	select {
	case <-done: //nolint:errcheck // whoever asks again learns it
	case <-ctx.Done():
	case <-time.After(hedgeDelay):
	}
	return nil
}

// refresh does what find does, in the background.
func (n *nameServers) refresh() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.looking || n.closed {
		return
	}
	n.looking = true
	n.work.Go(func() {
		_ = n.tryAll(make(chan struct{}, 1)) // each server's state is kept
		n.mu.Lock()
		defer n.mu.Unlock()
		n.looking = false
	})
}

// tryAll asks every address of every host, and returns the errors if none answers. It signs to answered when one does.
func (n *nameServers) tryAll(answered chan<- struct{}) error {
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		errs []error
		one  bool
	)
	for _, address := range n.configured {
		all.Go(func() {
			servers, err := n.lookUp(address)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
				return
			}
			for _, s := range servers {
				all.Go(func() {
					a := n.ask(s, routeOf(probeTopic), nameServerTimeout)
					mu.Lock()
					defer mu.Unlock()
					if a.command == nil {
						errs = append(errs, a.err)
						return
					}
					one = true
					select {
					case answered <- struct{}{}:
					default:
					}
				})
			}
		})
	}
	all.Wait()
	if one {
		return nil
	}
	return fmt.Errorf("name server: %w", errors.Join(errs...))
}

// lookUp returns the servers at a configured address. While its host can't be looked up they are those of the last time.
func (n *nameServers) lookUp(address string) ([]*nameServer, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(n.life, nameServerTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupHost(ctx, host)

	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.lost[address] = fmt.Errorf("%w: look up name server: %w", broker.ErrUnavailable, err)
		if len(n.found[address]) == 0 {
			return nil, n.lost[address]
		}
	} else {
		delete(n.lost, address)
		slices.Sort(ips)
		n.found[address] = n.found[address][:0]
		for _, ip := range ips {
			n.found[address] = append(n.found[address], net.JoinHostPort(ip, port))
		}
		n.arrange()
	}
	var servers []*nameServer
	for _, s := range n.servers {
		if slices.Contains(n.found[address], s.address) {
			servers = append(servers, s)
		}
	}
	return servers, nil
}

// arrange makes the list of servers anew from what was found. n.mu is held.
func (n *nameServers) arrange() {
	known := map[string]*nameServer{}
	for _, s := range n.servers {
		known[s.address] = s
	}
	n.servers = nil
	for _, address := range n.configured {
		for _, a := range n.found[address] {
			if slices.ContainsFunc(n.servers, func(s *nameServer) bool { return s.address == a }) {
				continue
			}
			s := known[a]
			if s == nil {
				s = &nameServer{address: a, state: untried, slot: make(chan struct{}, 1)}
			}
			delete(known, a)
			n.servers = append(n.servers, s)
		}
	}
	for _, gone := range known {
		if n.preferred == gone {
			n.preferred = nil
		}
		if !n.closed {
			n.work.Go(func() { gone.drop(nil) })
		}
	}
}
