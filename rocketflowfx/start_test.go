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

// A service starts well within fx's 15 s where one of its name servers accepts connections and never responds.
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
			pool, config := shop(t)
			config.RocketMQ.NameServers = append([]string{l.Addr().String()}, config.RocketMQ.NameServers...)
			start := time.Now()
			app := fxtest.New(t, rocketflowfx.Module, fx.Supply(pool, config), fx.Invoke(func(r *handlers.Router) {
				for i := range consumers {
					handlers.On(r, fmt.Sprint("reader", i), func(context.Context, rocketflow.Tx, Shipped) error { return nil })
				}
			}))
			app.RequireStart()
			t.Logf("started in %v", time.Since(start))
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("start took %v", took)
			}
			app.RequireStop()
		})
	}
}
