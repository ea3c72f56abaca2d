package remoting

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/test/poll"
)

// pair returns the two ends of a connection. serve handles requests at the far end, client those that the far end sends.
func pair(t *testing.T, keys Credentials, serve, client Handler) (near, far *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = Dial(t.Context(), l.Addr().String(), keys, client)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	far = NewConn(nc, Credentials{}, serve)
	t.Cleanup(near.Close)
	t.Cleanup(far.Close)
	return near, far
}

func echo(_ *Conn, r *Command) *Command {
	a := r.Answer(Success, "")
	a.Body = r.Body
	return a
}

func TestCallsRunConcurrently(t *testing.T) {
	t.Parallel()
	// The first request is answered only after the second.
	var held *Command
	near, _ := pair(t, Credentials{}, func(c *Conn, r *Command) *Command {
		if held == nil {
			held = r
			return nil
		}
		c.Respond(echo(c, r))
		return echo(c, held)
	}, nil)
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			body := fmt.Sprint("body", i)
			r, err := near.Call(t.Context(), &Command{Code: Heartbeat, Body: []byte(body)})
			if err != nil || string(r.Body) != body {
				t.Errorf("got %+v, %v, want %s", r, err, body)
			}
		})
	}
	all.Wait()
}

// TestPeerThatTakesNothing: a request ends with its context, whether it is being written or waits for its turn, and the connection ends when
// the peer takes nothing.
func TestPeerThatTakesNothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(t.Context(), l.Addr().String(), Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.Accept() // it never reads
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	began := time.Now()
	var full sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), writeTimeout/3)
	defer cancel()
	full.Go(func() {
		if _, err := c.Call(ctx, &Command{Code: SendMessage, Body: make([]byte, 32<<20)}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("32 MiB: %v", err)
		}
		if took := time.Since(began); took > writeTimeout*2/3 {
			t.Errorf("the call whose request is being written took %v", took)
		}
	})
	poll.Until(t, "it is being written", func() bool { return len(c.writing) > 0 })
	if _, err := c.Call(ctx, &Command{Code: Heartbeat}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > writeTimeout {
		t.Errorf("the call took %v", took)
	}
	<-c.Done()
	full.Wait()
	if took := time.Since(began); took < writeTimeout || took > 3*writeTimeout {
		t.Errorf("the connection ended after %v", took)
	}
}

func TestCallReturnsTheErrorOfTheResponse(t *testing.T) {
	t.Parallel()
	near, _ := pair(t, Credentials{}, func(_ *Conn, r *Command) *Command { return r.Answer(TopicNotExist, "no route\nstack trace") }, nil)
	r, err := near.Call(t.Context(), &Command{Code: RouteOfTopic})
	var refused *ResponseError
	if r == nil || !errors.As(err, &refused) || refused.Code != TopicNotExist || !errors.Is(err, broker.ErrTopicNotFound) || !errors.Is(err, broker.ErrRejected) {
		t.Errorf("got %v, %v", r, err)
	}
	if want := "topic not found (code 17: no route)"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestCallEndsWithContext(t *testing.T) {
	t.Parallel()
	requested := make(chan struct{})
	near, far := pair(t, Credentials{}, func(*Conn, *Command) *Command { close(requested); return nil }, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-requested; cancel() }()
	_, err := near.Call(ctx, &Command{Code: Heartbeat})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	// A response that comes too late is ignored.
	if err := far.Respond(&Command{Opaque: 1, Flag: flagResponse}); err != nil {
		t.Error(err)
	}
	if _, err := near.Call(ctx, &Command{Code: Heartbeat}); err != context.Canceled {
		t.Errorf("ended context: got %v", err)
	}
}

func TestPendingCallsFailAtOnceWhenTheConnectionBreaks(t *testing.T) {
	t.Parallel()
	requested := make(chan struct{})
	near, far := pair(t, Credentials{}, func(*Conn, *Command) *Command { close(requested); return nil }, nil)
	go func() { <-requested; far.net.Close() }()
	start := time.Now()
	if _, err := near.Call(t.Context(), &Command{Code: Heartbeat}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	<-near.Done()
	if near.Err() == nil || errors.Is(near.Err(), ErrClosed) {
		t.Errorf("ended with %v", near.Err())
	}
	if _, err := near.Call(t.Context(), &Command{}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("after the end: got %v", err)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	near, far := pair(t, Credentials{}, echo, nil)
	near.Close()
	near.Close()
	if near.Err() != ErrClosed {
		t.Errorf("got %v", near.Err())
	}
	if err := near.Notify(&Command{}); !errors.Is(err, ErrClosed) {
		t.Errorf("notify: got %v", err)
	}
	<-far.Done()
}

func TestPeerSendsRequests(t *testing.T) {
	t.Parallel()
	got := make(chan *Command, 1)
	near, far := pair(t, Credentials{}, nil, func(_ *Conn, r *Command) *Command {
		if r.Oneway() {
			got <- r
		}
		return echo(nil, r) // not sent in response to a oneway request
	})
	r, err := far.Call(t.Context(), &Command{Code: ConsumersChanged, Body: []byte("x")})
	if err != nil || string(r.Body) != "x" {
		t.Errorf("got %+v, %v", r, err)
	}
	if err := far.Notify(&Command{Code: CheckTransactionState}); err != nil {
		t.Fatal(err)
	}
	if r := <-got; r.Code != CheckTransactionState {
		t.Errorf("got %+v", r)
	}
	_ = near
}

func TestGarbageEndsConnection(t *testing.T) {
	t.Parallel()
	near, far := pair(t, Credentials{}, nil, nil)
	far.net.Write([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3})
	<-near.Done()
	if !errors.Is(near.Err(), ErrMalformed) {
		t.Errorf("got %v", near.Err())
	}
}

func TestRequestsAreSigned(t *testing.T) {
	t.Parallel()
	keys := Credentials{AccessKey: "ak", SecretKey: "sk"}
	near, _ := pair(t, keys, func(_ *Conn, r *Command) *Command {
		if !keys.Signed(r) {
			return r.Answer(NoPermission, "not signed")
		}
		if (Credentials{AccessKey: "ak", SecretKey: "other"}).Signed(r) {
			return r.Answer(NoPermission, "anything goes")
		}
		return echo(nil, r)
	}, nil)
	request := &Command{Code: Heartbeat, Ext: map[string]string{"topic": "t"}, Body: []byte("b")}
	if _, err := near.Call(t.Context(), request); err != nil {
		t.Error(err)
	}
	if len(request.Ext) != 1 {
		t.Errorf("the caller's request was changed: %v", request.Ext)
	}
}

// TestSignature pins the order of the fields and the encoding: the digest was computed with another implementation.
func TestSignature(t *testing.T) {
	t.Parallel()
	c := &Command{Ext: map[string]string{"topic": "T", "a": "1"}, Body: []byte("body")}
	Credentials{AccessKey: "ak", SecretKey: "sk"}.Sign(c)
	if got, want := c.Ext["Signature"], "125GBZarJR86lKsOc4oGAFbz9t4="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDialFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := Dial(t.Context(), l.Addr().String(), Credentials{}, nil); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestErrorKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code   Code
		remark string
		want   error
	}{
		{NoPermission, "", broker.ErrUnauthorized},
		{MessageIllegal, "timer message illegal, the delay time should not be bigger than the max delay 259200000ms", broker.ErrBeyondHorizon},
		{MessageIllegal, "msg body length limit 2097152B", broker.ErrTooLarge},
		{MessageIllegal, "else", broker.ErrIllegal},
		{SystemBusy, "", broker.ErrUnavailable},
		{ServiceNotAvailable, "", broker.ErrUnavailable},
		{Code(26), "group", errRefused},
	} {
		if err := (&Command{Code: c.code, Remark: c.remark}).Err(); !errors.Is(err, c.want) {
			t.Errorf("code %d %q: got %v, want %v", c.code, c.remark, err, c.want)
		}
	}
	if err := (&Command{}).Err(); err != nil {
		t.Errorf("success: got %v", err)
	}
}
