package remoting_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/test/testcert"
)

// serve accepts connections until the test ends, and counts them. After its first answers responses each is closed.
func serve(t *testing.T, config *tls.Config, answers int) (address string, accepted *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			if config != nil {
				nc = tls.Server(nc, config)
			}
			_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
			r := bufio.NewReader(nc)
			for range answers {
				request, err := remoting.Read(r)
				if err != nil {
					break
				}
				b, err := request.Answer(remoting.Success, "").Append(nil)
				if err != nil {
					t.Error(err)
				}
				if _, err := nc.Write(b); err != nil {
					break
				}
			}
			if answers == 0 {
				_, _ = remoting.Read(r)
			}
			_ = nc.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), accepted
}

func serverTLS(t *testing.T) (server, client *tls.Config) {
	authority := testcert.NewAuthority(t)
	server = &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, testcert.Leaf{Names: []string{"127.0.0.1"}}).TLS(t)}}
	return server, &tls.Config{RootCAs: authority.Pool()}
}

func problemOf(err error) remoting.TLSProblem {
	var e *remoting.TLSError
	if errors.As(err, &e) {
		return e.Problem
	}
	return ""
}

func call(t *testing.T, address string, config *tls.Config, times int) (*remoting.Conn, error) {
	t.Helper()
	conn, err := remoting.DialTLS(t.Context(), address, config, remoting.Credentials{}, nil)
	if err != nil {
		return nil, err
	}
	t.Cleanup(conn.Close)
	for range times {
		if _, err = conn.Call(t.Context(), &remoting.Command{Code: remoting.Heartbeat}); err != nil {
			break
		}
	}
	return conn, err
}

func TestCallOverTLS(t *testing.T) {
	t.Parallel()
	server, client := serverTLS(t)
	address, _ := serve(t, server, 1)
	if _, err := call(t, address, client, 1); err != nil {
		t.Error(err)
	}
	if client.ServerName != "" {
		t.Error("the caller's tls.Config was changed")
	}
	_, err := call(t, address, &tls.Config{RootCAs: client.RootCAs, ServerName: "other.example"}, 1)
	if problemOf(err) != remoting.WrongName || !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// Only a connection that ended before its first response is explained, and only by what its server shows of TLS.
func TestExplain(t *testing.T) {
	t.Parallel()
	server, client := serverTLS(t)
	for name, c := range map[string]struct {
		server, client *tls.Config
		answers, calls int
		want           remoting.TLSProblem
	}{
		"plain server that hangs up":      {nil, nil, 0, 1, ""},
		"plain server that hangs up late": {nil, nil, 1, 2, ""},
		"TLS server that hangs up":        {server, client, 0, 1, ""},
		"TLS server that hangs up late":   {server, client, 1, 2, ""},
		"TLS server, plain client":        {server, nil, 1, 1, remoting.TLSRequired},
		"plain server, TLS client":        {nil, client, 1, 1, remoting.NoTLS},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, accepted := serve(t, c.server, c.answers)
			conn, err := call(t, address, c.client, c.calls)
			if conn != nil {
				before := accepted.Load()
				err = conn.Explain(t.Context(), err)
				if c.answers < c.calls && c.answers > 0 && accepted.Load() != before {
					t.Error("a connection that had a response was explained")
				}
			}
			if problemOf(err) != c.want || !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A server that accepts connections and says nothing is not taken for one without TLS, and a context ends the wait.
func TestSilentServerIsUnavailable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, client := serverTLS(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = remoting.DialTLS(ctx, l.Addr().String(), client, remoting.Credentials{}, nil)
	if problemOf(err) != "" || !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
