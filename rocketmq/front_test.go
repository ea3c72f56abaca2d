package rocketmq_test

import (
	"bytes"
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// front is a name server and a broker, at one address, in front of an embedded broker: it forwards requests and may change the
// responses. It also sends requests of its own to the clients.
type front struct {
	address string
	stop    func()                                    // accepts no more clients, and disconnects those that are there
	alter   func(request, response *remoting.Command) // changes the response; called concurrently
	asIs    bool                                      // the broker's address in responses isn't replaced by that of the front

	mu    sync.Mutex
	conns []*remoting.Conn // to clients that have registered by a heartbeat
}

func newFront(t *testing.T, mq *rocketmqtest.Server, alter func(request, response *remoting.Command)) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{address: l.Addr().String(), alter: alter}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			f.serve(t, nc, mq)
		}
	}()
	f.stop = func() {
		_ = l.Close()
		<-done
		for _, c := range f.registered() {
			c.Close()
		}
	}
	t.Cleanup(f.stop)
	return f
}

// serve forwards the requests of one client on connections of their own, so that the broker sees each client.
func (f *front) serve(t *testing.T, nc net.Conn, mq *rocketmqtest.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	ready := make(chan struct{})
	var client *remoting.Conn
	toClient := func(_ *remoting.Conn, request *remoting.Command) *remoting.Command {
		<-ready
		_ = client.Notify(request)
		return nil
	}
	names, err := remoting.Dial(ctx, mq.Addr(), remoting.Credentials{}, nil)
	if err != nil {
		cancel()
		nc.Close()
		return
	}
	behind, err := remoting.Dial(ctx, mq.BrokerAddr(), remoting.Credentials{}, toClient)
	if err != nil {
		cancel()
		names.Close()
		nc.Close()
		return
	}
	var heartbeat sync.Once
	client = remoting.NewConn(nc, remoting.Credentials{}, func(c *remoting.Conn, request *remoting.Command) *remoting.Command {
		if request.Code == remoting.Heartbeat {
			heartbeat.Do(func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.conns = append(f.conns, c)
			})
		}
		work.Go(func() {
			upstream := behind
			if request.Code == remoting.RouteOfTopic || request.Code == remoting.ClusterInfo {
				upstream = names
			}
			response, err := upstream.Call(ctx, request)
			if response == nil {
				t.Logf("front: request %d: %v", request.Code, err)
				return
			}
			response.Opaque = request.Opaque
			if !f.asIs {
				response.Body = bytes.ReplaceAll(response.Body, []byte(mq.BrokerAddr()), []byte(f.address))
			}
			if f.alter != nil {
				f.alter(request, response)
			}
			_ = c.Respond(response)
		})
		return nil
	})
	close(ready)
	t.Cleanup(func() {
		cancel()
		client.Close()
		behind.Close()
		names.Close()
		work.Wait()
	})
}

func (f *front) registered() []*remoting.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.conns)
}

// request sends a request to all registered clients and returns those responses that aren't refusals.
func (f *front) request(ctx context.Context, request *remoting.Command) []*remoting.Command {
	var responses []*remoting.Command
	for _, c := range f.registered() {
		if response, err := c.Call(ctx, request); err == nil {
			responses = append(responses, response)
		}
	}
	return responses
}
