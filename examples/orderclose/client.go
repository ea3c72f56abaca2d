package orderclose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// client sends requests to the services, to any of their processes, and repeats a request without a response.
type client struct {
	http     *http.Client
	orders   *targets
	payments *targets
	ahead    time.Duration // how much the services' clock, Postgres', is ahead of ours
}

// targets are the processes of a service, used in turn.
type targets struct {
	urls []string
	next atomic.Uint64
}

func (t *targets) url() string { return t.urls[t.next.Add(1)%uint64(len(t.urls))] }

type placement struct {
	ID          string `json:"id"`
	SKU         string `json:"sku"`
	Quantity    int64  `json:"quantity"`
	AmountCents int64  `json:"amount_cents"`
	PayWithin   string `json:"pay_within"`
}

type order struct {
	ID    string    `json:"id"`
	State string    `json:"state"`
	PayBy time.Time `json:"pay_by"`
}

const (
	requestTimeout = 10 * time.Second
	attempts       = 40
	attemptPause   = 250 * time.Millisecond
)

func newClient(c Config) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = c.Customers
	return &client{
		http:     &http.Client{Timeout: requestTimeout, Transport: transport},
		orders:   &targets{urls: c.OrderURLs},
		payments: &targets{urls: c.PaymentURLs},
	}
}

func (c *client) putStock(ctx context.Context, sku string, onHand int64) error {
	return c.want(c.do(ctx, http.MethodPut, c.orders, "/stock/"+sku, map[string]int64{"on_hand": onHand}, nil))
}

func (c *client) place(ctx context.Context, p placement) (o order, err error) {
	err = c.want(c.post(ctx, c.orders, "/orders", p, &o))
	return o, err
}

func (c *client) order(ctx context.Context, id string) (o order, err error) {
	err = c.want(c.do(ctx, http.MethodGet, c.orders, "/orders/"+id, nil, &o))
	return o, err
}

func (c *client) want(status int, err error) error {
	if err == nil && status >= http.StatusBadRequest {
		return fmt.Errorf("response is %d", status)
	}
	return err
}

func (c *client) post(ctx context.Context, t *targets, path string, body, into any) (int, error) {
	return c.do(ctx, http.MethodPost, t, path, body, into)
}

// do repeats a request until the response is not a server error: all requests may be repeated.
func (c *client) do(ctx context.Context, method string, t *targets, path string, body, into any) (int, error) {
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	var last error
	for range attempts {
		status, err := c.once(ctx, method, t.url()+path, encoded, into)
		if err == nil && status < http.StatusInternalServerError {
			return status, nil
		}
		if err == nil {
			err = fmt.Errorf("response is %d", status)
		}
		last = fmt.Errorf("%s %s: %w", method, path, err)
		if err := sleep(ctx, attemptPause); err != nil {
			return 0, err
		}
	}
	return 0, last
}

func (c *client) once(ctx context.Context, method, url string, body []byte, into any) (int, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if into != nil && response.StatusCode < http.StatusBadRequest {
		err = json.Unmarshal(content, into)
	}
	return response.StatusCode, err
}
