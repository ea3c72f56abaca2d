package rocketflowfx_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/rocketflowfx"
)

// A service starts as fast, and so well within fx's 15 s, where one of its name servers accepts connections and never responds.
func TestStartWithANameServerThatHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		var conns []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
		}
		for _, c := range conns {
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); accepting.Wait() })
	for _, consumers := range []int{1, 3} {
		t.Run(fmt.Sprint(consumers), func(t *testing.T) {
			t.Parallel()
			// Starts side by side wait for a busy machine alike, so that the difference is what the name server costs.
			var with, without time.Duration
			var both sync.WaitGroup
			for took, before := range map[*time.Duration][]string{&with: {l.Addr().String()}, &without: nil} {
				pool, config := shop(t)
				config.RocketMQ.NameServers = append(before, config.RocketMQ.NameServers...)
				app := fxtest.New(t, rocketflowfx.Module, fx.Supply(pool, config), fx.Invoke(func(r *handlers.Router) {
					for i := range consumers {
						handlers.On(r, fmt.Sprint("reader", i), func(context.Context, rocketflow.Tx, Shipped) error { return nil })
					}
				}))
				t.Cleanup(app.RequireStop)
				both.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), app.StartTimeout())
					defer cancel()
					start := time.Now()
					if err := app.Start(ctx); err != nil {
						t.Error(err)
					}
					*took = time.Since(start)
				})
			}
			both.Wait()
			if with > without+5*time.Second { // the client alone would wait 6 s for it at each start of a consumer
				t.Errorf("start took %v, and %v without the name server that hangs", with, without)
			}
		})
	}
}
