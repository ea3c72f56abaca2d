package order_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/examples/order"
	"github.com/rocketflow/rocketflow/test/servicetest"
)

func start(t *testing.T) *servicetest.Client {
	t.Helper()
	return servicetest.New(t).Start(order.Configure, order.App)
}

type object = map[string]any

func placement(sku string, change ...any) object {
	o := object{"sku": sku, "quantity": 3, "amount_cents": 1999, "pay_within": "30m"}
	for i := 0; i < len(change); i += 2 {
		o[change[i].(string)] = change[i+1]
	}
	return o
}

func wantStock(t *testing.T, c *servicetest.Client, sku string, onHand, reserved float64) {
	t.Helper()
	if a := c.Want(http.StatusOK, "GET", "/stock/"+sku, nil); a.JSON["on_hand"] != onHand || a.JSON["reserved"] != reserved {
		t.Errorf("stock is %s, want on_hand %v, reserved %v", a.Text, onHand, reserved)
	}
}

func TestOrders(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.Want(http.StatusOK, "PUT", "/stock/cup", object{"on_hand": 10})

	t.Run("place", func(t *testing.T) {
		id := uuid.NewString()
		a := c.Want(http.StatusCreated, "POST", "/orders", placement("cup", "id", id))
		fields := object{
			"id": id, "sku": "cup", "quantity": 3.0, "amount_cents": 1999.0, "state": "pending", "reason": "", "finished_at": nil,
		}
		for field, want := range fields {
			if got, ok := a.JSON[field]; !ok || got != want {
				t.Errorf("%s is %v, want %v", field, got, want)
			}
		}
		if len(a.JSON) != 9 {
			t.Errorf("order has other fields: %s", a.Text)
		}
		wantStock(t, c, "cup", 10, 3)

		placed, payBy := instant(t, a.JSON["placed_at"]), instant(t, a.JSON["pay_by"])
		if got := payBy.Sub(placed); got != 30*time.Minute {
			t.Errorf("pay_by is %v after placed_at", got)
		}
		again := c.Want(http.StatusOK, "POST", "/orders", placement("cup", "id", id))
		got := c.Want(http.StatusOK, "GET", "/orders/"+id, nil)
		if again.Text != a.Text || got.Text != a.Text {
			t.Errorf("the same order differs: %s, %s, %s", a.Text, again.Text, got.Text)
		}
		for field, other := range map[string]any{"sku": "saucer", "quantity": 2, "amount_cents": 2000, "pay_within": "31m"} {
			c.Want(http.StatusConflict, "POST", "/orders", placement("cup", "id", id, field, other))
		}
		wantStock(t, c, "cup", 10, 3)
	})

	t.Run("no stock", func(t *testing.T) {
		id := uuid.NewString()
		c.Want(http.StatusConflict, "POST", "/orders", placement("cup", "id", id, "quantity", 8))
		c.Want(http.StatusConflict, "POST", "/orders", placement("saucer"))
		c.Want(http.StatusNotFound, "GET", "/orders/"+id, nil)
		wantStock(t, c, "cup", 10, 3)
	})

	t.Run("cancel", func(t *testing.T) {
		a := c.Want(http.StatusCreated, "POST", "/orders", placement("cup"))
		path := fmt.Sprintf("/orders/%s/cancel", a.JSON["id"])
		wantStock(t, c, "cup", 10, 6)
		a = c.Want(http.StatusOK, "POST", path, nil)
		if a.JSON["state"] != "closed" || a.JSON["reason"] != "cancelled" {
			t.Errorf("cancelled order is %s", a.Text)
		}
		instant(t, a.JSON["finished_at"])
		wantStock(t, c, "cup", 10, 3)
		c.Want(http.StatusConflict, "POST", path, nil)
		c.Want(http.StatusNotFound, "POST", "/orders/"+uuid.NewString()+"/cancel", nil)
	})

	t.Run("timeout", func(t *testing.T) {
		a := c.Want(http.StatusCreated, "POST", "/orders", placement("cup", "pay_within", "700ms"))
		a = c.WaitFor(fmt.Sprintf("/orders/%s", a.JSON["id"]), "state", "closed")
		if a.JSON["reason"] != "timeout" {
			t.Errorf("order not paid is %s", a.Text)
		}
		if late := instant(t, a.JSON["finished_at"]).Sub(instant(t, a.JSON["pay_by"])); late < 0 {
			t.Errorf("closed %v early", -late)
		}
		wantStock(t, c, "cup", 10, 3)
	})
}

var micros = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)

func instant(t *testing.T, v any) time.Time {
	t.Helper()
	s, _ := v.(string)
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || !micros.MatchString(s) {
		t.Fatalf("%v is no instant with microseconds", v)
	}
	return at
}

func TestList(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.Want(http.StatusOK, "PUT", "/stock/cup", object{"on_hand": 100})
	var ids []any
	for range 5 {
		ids = append(ids, c.Want(http.StatusCreated, "POST", "/orders", placement("cup")).JSON["id"])
	}
	c.Want(http.StatusOK, "POST", fmt.Sprintf("/orders/%s/cancel", ids[0]), nil)

	var listed []any
	for path := "/orders?state=pending&limit=3"; path != ""; {
		a := c.Want(http.StatusOK, "GET", path, nil)
		for _, o := range a.JSON["orders"].([]any) {
			listed = append(listed, o.(object)["id"])
		}
		path = ""
		if next := a.JSON["next"]; next != nil {
			path = fmt.Sprintf("/orders?state=pending&limit=3&after=%s", next)
		}
	}
	if fmt.Sprint(listed) != fmt.Sprint(ids[1:]) {
		t.Errorf("listed %v, want %v", listed, ids[1:])
	}
	if a := c.Want(http.StatusOK, "GET", "/orders?state=confirmed", nil); a.Text != `{"orders":[],"next":null}`+"\n" {
		t.Errorf("empty page is %s", a.Text)
	}
	c.WantField("state", "GET", "/orders?state=open", nil)
	c.WantField("after", "GET", "/orders?after=1", nil)
	c.WantField("limit", "GET", "/orders?limit=0", nil)
	c.WantField("limit", "GET", "/orders?limit=501", nil)
	c.WantField("limit", "GET", "/orders?limit=all", nil)
	c.WantField("limit", "GET", "/orders?limit=", nil)
	c.WantField("limit", "GET", "/orders?limit=1&limit=2", nil)
	c.WantField("state", "GET", "/orders?state=", nil)
	c.WantField("colour", "GET", "/orders?colour=red", nil)
	c.WantField("query", "GET", "/orders?limit=%zz", nil)
}

func TestStock(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.Want(http.StatusNotFound, "GET", "/stock/cup", nil)
	if a := c.Want(http.StatusOK, "PUT", "/stock/cup", object{"on_hand": 5}); a.Text != `{"sku":"cup","on_hand":5,"reserved":0}`+"\n" {
		t.Errorf("stock is %s", a.Text)
	}
	c.Want(http.StatusCreated, "POST", "/orders", placement("cup"))
	c.Want(http.StatusConflict, "PUT", "/stock/cup", object{"on_hand": 2})
	c.Want(http.StatusOK, "PUT", "/stock/cup", object{"on_hand": 3})
	wantStock(t, c, "cup", 3, 3)
	c.WantField("on_hand", "PUT", "/stock/cup", object{})
	for _, value := range []any{nil, "1", 1.5, -1, 1_000_000_000_001} {
		c.WantField("on_hand", "PUT", "/stock/cup", object{"on_hand": value})
	}
	c.WantField("colour", "PUT", "/stock/cup", object{"on_hand": 1, "colour": "red"})
	c.WantField("sku", "PUT", "/stock/a%20b", object{"on_hand": 1})
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	c := start(t)
	number := []any{nil, "3", 1.5, true, -1, 0, 1e30}
	for field, values := range map[string][]any{
		"id":           {"1", 7, "{" + uuid.NewString() + "}", strings.ReplaceAll(uuid.NewString(), "-", "")},
		"sku":          {nil, 5, "", "a cup", "a\x00cup", strings.Repeat("x", 65)},
		"quantity":     append(number, 1_000_001),
		"amount_cents": append(number, json.RawMessage("9223372036854775808")),
		"pay_within":   {nil, 30, "", "soon", "30", "0s", "-1m", "1ns", "8760h1s"},
		"colour":       {"red"},
	} {
		for _, value := range values {
			c.WantField(field, "POST", "/orders", placement("cup", field, value))
		}
		if o := placement("cup"); o[field] != nil {
			delete(o, field)
			c.WantField(field, "POST", "/orders", o)
		}
	}
	c.WantField("body", "POST", "/orders", "")
	c.WantField("body", "POST", "/orders", "sku=cup")
	c.WantField("body", "POST", "/orders", "[]")
	c.WantField("body", "POST", "/orders", `{"sku":"cup","quantity":1,"amount_cents":1,"pay_within":"1m"} {}`)
	if a := c.Want(http.StatusRequestEntityTooLarge, "POST", "/orders", `{"sku":"`+strings.Repeat("x", 100_000)+`"}`); a.JSON["field"] != "body" {
		t.Errorf("a large body: %s", a.Text)
	}
	c.WantContentType(http.StatusUnsupportedMediaType, "POST", "/orders", "application/x-www-form-urlencoded", placement("cup"))
	c.WantContentType(http.StatusUnsupportedMediaType, "PUT", "/stock/cup", "application/json; charset=latin1", object{"on_hand": 1})
	c.WantContentType(http.StatusOK, "PUT", "/stock/cup", "Application/JSON; charset=UTF-8", object{"on_hand": 1})

	for _, path := range []string{"/orders/" + uuid.NewString(), "/orders/1", "/stock/a%00b", "/stock/a%20b", "/stock/%2F", "/stock/.", "/stock/..", "//orders", "/nothing"} {
		if a := c.Want(http.StatusNotFound, "GET", path, nil); a.JSON["detail"] == nil {
			t.Errorf("GET %s: no problem document: %s", path, a.Text)
		}
	}
	if a := c.Want(http.StatusMethodNotAllowed, "DELETE", "/orders", nil); a.JSON["detail"] == nil {
		t.Errorf("DELETE: no problem document: %s", a.Text)
	}
}

func TestProbesMetricsAndDocumentedPathsAreServed(t *testing.T) {
	t.Parallel()
	c := start(t)
	c.Want(http.StatusOK, "GET", "/healthz", nil)
	c.Want(http.StatusOK, "GET", "/readyz", nil)
	if a := c.Want(http.StatusOK, "GET", "/metrics", nil); !strings.Contains(a.Text, "go_goroutines") || !strings.Contains(a.Text, "rocketflow_outbox_backlog_events") {
		t.Errorf("metrics are %.200s", a.Text)
	}
	c.WantDocumented()
}
