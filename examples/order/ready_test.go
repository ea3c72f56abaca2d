package order_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/test/servicetest"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// Without the database the service is not ready; without the name server it is ready, takes orders, and says what is
// degraded. It is well again by itself.
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

	want := func(httpStatus int, status, part string) {
		t.Helper()
		a := c.Want(httpStatus, "GET", "/readyz", nil)
		var report app.Report
		if err := json.Unmarshal([]byte(a.Text), &report); err != nil {
			t.Fatal(err)
		}
		if string(report.Status) != status || len(report.Problems) == 0 || string(report.Problems[0].Part) != part {
			t.Errorf("the report is %s, want %s because of the %s", a.Text, status, part)
		}
		c.Want(http.StatusOK, "GET", "/healthz", nil)
	}
	postgres.Close()
	want(http.StatusServiceUnavailable, "not_ready", "database")
	for range 5 { // on connections of the pool, and on new ones
		c.Want(http.StatusServiceUnavailable, "POST", "/orders", placement("cup"))
	}
	postgres.Open()
	c.WaitFor("/readyz", "status", "ok")

	names.Close()
	want(http.StatusOK, "degraded", "broker")
	c.Want(http.StatusCreated, "POST", "/orders", placement("cup"))
	names.Open()
	c.WaitFor("/readyz", "status", "ok")
}
