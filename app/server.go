package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
)

// Limits of the HTTP server.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = time.Minute
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// server is the HTTP server of an App. Without a handler it is never started.
type server struct {
	log   *slog.Logger
	group background.Group // of the goroutine that serves

	mu       sync.Mutex
	handler  http.Handler
	http     *http.Server // nil: not started
	listener net.Listener
	failure  chan error
}

func (s *server) setHandler(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

func (s *server) start(ctx context.Context, addr string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handler == nil {
		return nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s (app.Config.ListenAddr): %w", addr, err)
	}
	s.listener = listener
	s.http = &http.Server{
		Handler: s.handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	s.failure = make(chan error, 1)
	serving, failure := s.http, s.failure
	s.log.Info("HTTP server listens", keyAddress, listener.Addr().String())
	return s.group.Start(ctx, func(context.Context) error {
		s.group.Go(func(context.Context) {
			if err := serving.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				failure <- fmt.Errorf("serve HTTP: %w", err)
			}
		})
		return nil
	})
}

// stop accepts no more requests and waits until those that are being served are done, or ctx ends: then it closes their
// connections.
func (s *server) stop(ctx context.Context) error {
	s.mu.Lock()
	serving := s.http
	s.mu.Unlock()
	if serving == nil {
		return nil
	}
	err := serving.Shutdown(ctx)
	if err != nil {
		_ = serving.Close() // the error of Shutdown says it
	}
	return errors.Join(err, s.group.Stop(context.WithoutCancel(ctx)))
}

// failed returns the channel that receives the error with which the server ended by itself, or nil without a server.
func (s *server) failed() <-chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

func (s *server) addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}
