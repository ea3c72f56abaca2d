package rocketmq

import (
	"context"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// learnedBroker is a broker that routes have shown, where the cluster can't be asked for its brokers.
type learnedBroker struct {
	address string // of the master
	seen    time.Time
}

// learn records the brokers of a route. It reports whether one is new or has another address.
func (n *nameServers) learn(route remoting.Route) (changed bool) {
	if n.listsBrokers {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range route.Brokers {
		address := b.Master()
		if known, ok := n.learned[b.Name]; address == "" || !ok && len(n.learned) >= remoting.MaxBrokers {
			continue
		} else if known.address != address {
			changed = true
		}
		n.learned[b.Name] = learnedBroker{address, time.Now()}
	}
	return changed
}

// learnedMasters returns the addresses of the brokers that routes have shown in the last Config.ForgetBrokerAfter.
func (n *nameServers) learnedMasters() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	masters := map[string]string{}
	for name, b := range n.learned {
		if time.Since(b.seen) > n.forgetAfter {
			delete(n.learned, name)
			continue
		}
		masters[name] = b.address
	}
	return masters
}

// ping returns nil if a name server responds.
func (n *nameServers) ping(ctx context.Context) error {
	if response, err := n.call(ctx, routeOf(probeTopic)); response == nil {
		return err
	}
	return nil
}

// connectToLearned connects to the brokers that a route has shown, and waits until each has been tried or ctx ends: what follows sends
// requests to them.
func (c *Client) connectToLearned(ctx context.Context) {
	_ = c.updateBrokerConns(ctx) // can't fail: nothing is requested
	for _, b := range c.allBrokerConns() {
		select {
		case <-b.tried:
		case <-ctx.Done():
			return
		}
	}
}
