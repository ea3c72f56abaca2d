package service

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
)

// Server serves the Mux from the application's start to its stop.
type Server struct {
	http     *http.Server
	address  string
	listener net.Listener // after the start
	done     chan struct{}
	log      *slog.Logger
}

func newServer(lc fx.Lifecycle, c Config, mux *Mux, log *slog.Logger) *Server {
	s := &Server{
		http: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      10*time.Second + requestTime, // it begins with the request's header
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    32 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
		address: c.ListenAddr,
		done:    make(chan struct{}),
		log:     log,
	}
	lc.Append(fx.StartStopHook(s.start, s.stop))
	return s
}

// Address returns the address, host:port, that the server listens on. Call it after the start.
func (s *Server) Address() string { return s.listener.Addr().String() }

func (s *Server) start(ctx context.Context) (err error) {
	var config net.ListenConfig
	if s.listener, err = config.Listen(ctx, "tcp", s.address); err != nil {
		return &rocketflow.FieldError{Field: "LISTEN_ADDR", Reason: "can't listen: " + err.Error(), Err: err}
	}
	s.log.Info("HTTP server listens", "address", s.Address())
	go func() {
		defer close(s.done)
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("HTTP server failed, no requests are served any more", "error", err)
		}
	}()
	return nil
}

func (s *Server) stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	<-s.done
	return err
}
