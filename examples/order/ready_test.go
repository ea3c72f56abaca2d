package order_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/examples/internal/servicetest"
	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// TestOutages takes away the database, then the name server. The service says which, lives, and is ready again by itself.
func TestOutages(t *testing.T) {
	t.Parallel()
	database, err := url.Parse(testdb.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	postgres := servicetest.NewGate(t, database.Host)
	database.Host = postgres.Address
	nameServer, _, _ := strings.Cut(os.Getenv("ROCKETMQ_NAMESRV"), ";")
	names := servicetest.NewGate(t, nameServer)

	c := servicetest.On(t, database.String(), names.Address).Start(order.Configure, order.App)
	c.Want(http.StatusOK, "GET", "/readyz", nil)
	c.Want(http.StatusOK, "PUT", "/stock/cup", object{"on_hand": 10})

	wantReason := func(reason string) {
		t.Helper()
		if a := c.Want(http.StatusServiceUnavailable, "GET", "/readyz", nil); !strings.HasPrefix(fmt.Sprint(a.JSON["detail"]), reason) {
			t.Errorf("the reason is %s, want %s", a.Text, reason)
		}
		c.Want(http.StatusOK, "GET", "/healthz", nil)
	}
	postgres.Close()
	wantReason("database: ")
	for range 5 { // on connections of the pool, and on new ones
		c.Want(http.StatusServiceUnavailable, "POST", "/orders", placement("cup"))
	}
	postgres.Open()
	c.WaitFor("/readyz", "status", "ready")

	names.Close()
	wantReason("broker: ")
	names.Open()
	c.WaitFor("/readyz", "status", "ready")
}
