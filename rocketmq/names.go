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

const nameServerTimeout = 3 * time.Second

// nameServers asks the name servers, one after the other until one answers.
type nameServers struct {
	addresses []string

	mu       sync.Mutex
	conn     *remoting.Conn
	closed   bool
	first    int      // where to begin: the server that answered last
	resolved []string // last look-up, for Resolve
}

// call asks each name server at most once. A server's refusal is an answer.
func (n *nameServers) call(ctx context.Context, request *remoting.Command) (*remoting.Command, error) {
	var errs []error
	for range n.addresses {
		conn, err := n.connect(ctx)
		if err == nil {
			one, cancel := context.WithTimeout(ctx, nameServerTimeout)
			var answer *remoting.Command
			answer, err = conn.Call(one, request)
			cancel()
			if answer != nil {
				return answer, err
			}
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: name server: %w", broker.ErrUnavailable, err)
		}
		errs = append(errs, err)
		n.skip(conn)
	}
	return nil, fmt.Errorf("name server: %w", errors.Join(errs...))
}

func (n *nameServers) connect(ctx context.Context) (*remoting.Conn, error) {
	n.mu.Lock()
	conn, address := n.conn, n.addresses[n.first]
	n.mu.Unlock()
	if conn != nil && conn.Err() == nil {
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(ctx, nameServerTimeout)
	defer cancel()
	// A name server knows no users: what is signed for a broker need not be shown to it.
	made, err := remoting.Dial(ctx, address, remoting.Credentials{}, nil)
	if err != nil {
		return conn, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		made.Close()
		return nil, errClientClosed
	case n.conn != nil && n.conn.Err() == nil: // someone else was faster
		made.Close()
		return n.conn, nil
	}
	n.conn = made
	return made, nil
}

// skip gives up conn, or the address that gave none, and turns to the next server.
func (n *nameServers) skip(conn *remoting.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != conn {
		return // someone else has turned already
	}
	if conn != nil {
		conn.Close()
		n.conn = nil
	}
	n.first = (n.first + 1) % len(n.addresses)
}

func (n *nameServers) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.conn != nil {
		n.conn.Close()
		n.conn = nil
	}
}

// route returns the route of a topic, or broker.ErrTopicNotFound.
func (n *nameServers) route(ctx context.Context, topic string) (remoting.Route, error) {
	var route remoting.Route
	answer, err := n.call(ctx, &remoting.Command{
		Code: remoting.RouteOfTopic,
		Ext:  map[string]string{"topic": topic, "acceptStandardJsonOnly": "true"},
	})
	if err != nil {
		return route, printable.Errorf("route of topic %s: %w", topic, err)
	}
	if err := remoting.DecodeJSON(answer.Body, &route); err != nil {
		return route, printable.Errorf("route of topic %s: %w", topic, err)
	}
	return route, nil
}

// masters returns the addresses of all masters by name.
func (n *nameServers) masters(ctx context.Context) (map[string]string, error) {
	answer, err := n.call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	var cluster remoting.Cluster
	if err := remoting.DecodeJSON(answer.Body, &cluster); err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	masters := map[string]string{}
	for name, b := range cluster.Brokers {
		if address := b.Master(); address != "" {
			masters[name] = address
		}
	}
	return masters, nil
}

// Resolve gives the client under us the name servers as ip:port, the only form that it takes. While the names can't be
// looked up it stays with those that it had.
func (n *nameServers) Resolve() []string {
	ctx, cancel := context.WithTimeout(context.Background(), nameServerTimeout)
	defer cancel()
	if err := n.resolve(ctx); err != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		return slices.Clone(n.resolved)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.resolved)
}

func (n *nameServers) Description() string {
	return fmt.Sprintf("rocketflow's name servers %v", n.addresses)
}

func (n *nameServers) resolve(ctx context.Context) error {
	var all []string
	for _, address := range n.addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return fmt.Errorf("%w: look up name server: %w", broker.ErrUnavailable, err)
		}
		for _, ip := range ips {
			all = append(all, net.JoinHostPort(ip, port))
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	n.mu.Lock()
	n.resolved = all
	n.mu.Unlock()
	return nil
}
