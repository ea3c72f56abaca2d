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
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// probeTopic is the topic whose route is requested to see whether a name server responds. Most have it; one that doesn't says so, which
// is a response as well.
const probeTopic = remoting.DefaultTopic

// find looks up the name servers' hosts and sends a request to each of their addresses, all concurrently. It returns when each has
// responded or failed, or hedgeDelay after the first has responded, or when ctx ends. It fails if none has responded.
func (n *nameServers) find(ctx context.Context) error {
	responded, done := make(chan struct{}, 1), make(chan error, 1)
	if !n.work.Go(func(work context.Context) { done <- n.probeAll(work, responded) }) {
		return errClientClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return printable.Errorf("%w: name servers %v: no response: %w", broker.ErrUnavailable, n.configured, context.Cause(ctx))
	case <-responded:
	}
	select {
	case <-done: //nolint:errcheck // a name server has responded, so the others' errors don't matter
	case <-ctx.Done():
	case <-time.After(hedgeDelay):
	}
	return nil
}

// refresh starts what find does in the background, unless that is in progress.
func (n *nameServers) refresh() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refreshing {
		return
	}
	n.refreshing = n.work.Go(func(work context.Context) {
		_ = n.probeAll(work, make(chan struct{}, 1)) // each server's state is recorded
		n.mu.Lock()
		defer n.mu.Unlock()
		n.refreshing = false
	})
}

// probeAll sends a request to every address of every host, and returns the errors if none responds. It sends to responded when the first
// does.
func (n *nameServers) probeAll(work context.Context, responded chan<- struct{}) error {
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		errs []error
		one  bool
	)
	for _, address := range n.configured {
		all.Go(func() {
			servers, err := n.lookUp(work, address)
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
				return
			}
			for _, s := range servers {
				all.Go(func() {
					r := n.callOne(work, s, routeOf(probeTopic), nameServerTimeout)
					mu.Lock()
					defer mu.Unlock()
					if r.command == nil {
						errs = append(errs, r.err)
						return
					}
					one = true
					select {
					case responded <- struct{}{}:
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

// lookUp looks up the host of a configured address and returns its servers. If the DNS lookup fails it returns those of the last one.
func (n *nameServers) lookUp(work context.Context, address string) ([]*nameServer, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(work, nameServerTimeout)
	defer cancel()
	ips, err := n.lookUpHost(ctx, host)

	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.lookupErrs[address] = fmt.Errorf("%w: look up name server: %w", broker.ErrUnavailable, err)
		if len(n.found[address]) == 0 {
			return nil, n.lookupErrs[address]
		}
	} else {
		delete(n.lookupErrs, address)
		slices.Sort(ips)
		n.found[address] = n.found[address][:0]
		for _, ip := range ips {
			n.found[address] = append(n.found[address], net.JoinHostPort(ip, port))
		}
		n.updateServers()
	}
	var servers []*nameServer
	for _, s := range n.servers {
		if slices.Contains(n.found[address], s.address) {
			servers = append(servers, s)
		}
	}
	return servers, nil
}

// updateServers makes servers match found: it keeps those that were found again and drops the others. n.mu is held.
func (n *nameServers) updateServers() {
	known := map[string]*nameServer{}
	for _, s := range n.servers {
		known[s.address] = s
	}
	n.servers = nil
	for _, address := range n.configured {
		host, _, _ := net.SplitHostPort(address) // Config.validate has checked it
		for _, a := range n.found[address] {
			if slices.ContainsFunc(n.servers, func(s *nameServer) bool { return s.address == a }) {
				continue
			}
			s := known[a]
			if s == nil {
				s = &nameServer{address: a, tls: tlsFor(host, n.tls), state: untried, connSlot: make(chan struct{}, 1)}
			}
			delete(known, a)
			n.servers = append(n.servers, s)
		}
	}
	for _, gone := range known {
		if n.preferred == gone {
			n.preferred = nil
		}
		n.work.Go(func(context.Context) { gone.drop(nil) })
	}
}
