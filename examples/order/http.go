package order

import (
	_ "embed"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/examples/service"
)

// OpenAPI describes the service's HTTP interface.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Limits of a request.
const (
	maxQuantity  = 1_000_000
	maxPayWithin = 365 * 24 * time.Hour
	maxOnHand    = 1_000_000_000_000
	defaultLimit = 50
	maxLimit     = 500
)

var skuName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`)

// Routes adds the service's HTTP interface to a mux.
func (s *Service) Routes(mux *service.Mux) {
	mux.Handle("POST /orders", s.postOrder)
	mux.Handle("GET /orders", s.getOrders)
	mux.Handle("GET /orders/{id}", s.getOrder)
	mux.Handle("POST /orders/{id}/cancel", s.postCancel)
	mux.Handle("PUT /stock/{sku}", s.putStock)
	mux.Handle("GET /stock/{sku}", s.getStock)
}

func (s *Service) postOrder(r *http.Request) (int, any, error) {
	p, err := placement(r)
	if err != nil {
		return 0, nil, err
	}
	o, placed, err := s.Place(r.Context(), p)
	if err != nil {
		return 0, nil, withStatus(err)
	}
	if !placed {
		return http.StatusOK, o, nil
	}
	return http.StatusCreated, o, nil
}

func placement(r *http.Request) (Placement, error) {
	body, err := service.Decode[struct {
		ID          *string `json:"id"`
		SKU         string  `json:"sku"`
		Quantity    int64   `json:"quantity"`
		AmountCents int64   `json:"amount_cents"`
		PayWithin   string  `json:"pay_within"`
	}](r)
	if err != nil {
		return Placement{}, err
	}
	p := Placement{SKU: body.SKU, Quantity: body.Quantity, AmountCents: body.AmountCents}
	if body.ID == nil {
		p.ID, err = uuid.NewV7()
	} else if p.ID, err = service.ParseUUID(*body.ID); err != nil {
		err = service.BadField("id", "%v", err)
	}
	if err != nil {
		return p, err
	}
	p.PayWithin, err = time.ParseDuration(body.PayWithin)
	switch {
	case !skuName.MatchString(p.SKU):
		return p, service.BadField("sku", "want 1 to 64 letters, digits, . _ -, not beginning with . or -")
	case p.Quantity < 1 || p.Quantity > maxQuantity:
		return p, service.BadField("quantity", "want 1 to %d", maxQuantity)
	case p.AmountCents < 1:
		return p, service.BadField("amount_cents", "want more than 0")
	case err != nil || p.PayWithin < time.Microsecond || p.PayWithin > maxPayWithin:
		return p, service.BadField("pay_within", `want a duration such as "30m", more than 0 and at most %v`, maxPayWithin)
	}
	return p, nil
}

// page is a piece of the list. Next is the cursor of the following one, null at the end.
type page struct {
	Orders []Order    `json:"orders"`
	Next   *uuid.UUID `json:"next"`
}

func (s *Service) getOrders(r *http.Request) (int, any, error) {
	query, err := service.Query(r, "state", "after", "limit")
	if err != nil {
		return 0, nil, err
	}
	state := query.Get("state")
	if query.Has("state") && state != Pending && state != Confirmed && state != Closed {
		return 0, nil, service.BadField("state", "want pending, confirmed or closed")
	}
	after := uuid.Nil
	if query.Has("after") {
		if after, err = service.ParseUUID(query.Get("after")); err != nil {
			return 0, nil, service.BadField("after", "%v", err)
		}
	}
	limit := defaultLimit
	if query.Has("limit") {
		limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || limit < 1 || limit > maxLimit {
			return 0, nil, service.BadField("limit", "want 1 to %d", maxLimit)
		}
	}
	orders, err := s.List(r.Context(), state, after, limit+1)
	if err != nil {
		return 0, nil, err
	}
	p := page{Orders: orders}
	if len(orders) > limit {
		p.Orders = orders[:limit]
		p.Next = &p.Orders[limit-1].ID
	}
	return http.StatusOK, p, nil
}

func (s *Service) getOrder(r *http.Request) (int, any, error) {
	id, err := orderID(r)
	if err != nil {
		return 0, nil, err
	}
	o, err := s.Get(r.Context(), id)
	return http.StatusOK, o, withStatus(err)
}

func (s *Service) postCancel(r *http.Request) (int, any, error) {
	id, err := orderID(r)
	if err != nil {
		return 0, nil, err
	}
	o, err := s.Cancel(r.Context(), id)
	return http.StatusOK, o, withStatus(err)
}

func (s *Service) putStock(r *http.Request) (int, any, error) {
	sku := r.PathValue("sku")
	if !skuName.MatchString(sku) {
		return 0, nil, service.BadField("sku", "want 1 to 64 letters, digits, . _ -, not beginning with . or -")
	}
	body, err := service.Decode[struct {
		OnHand *int64 `json:"on_hand"`
	}](r)
	if err != nil {
		return 0, nil, err
	}
	if body.OnHand == nil || *body.OnHand < 0 || *body.OnHand > maxOnHand {
		return 0, nil, service.BadField("on_hand", "want 0 to %d", int64(maxOnHand))
	}
	stock, err := s.PutStock(r.Context(), sku, *body.OnHand)
	return http.StatusOK, stock, withStatus(err)
}

func (s *Service) getStock(r *http.Request) (int, any, error) {
	sku := r.PathValue("sku")
	if !skuName.MatchString(sku) {
		return 0, nil, withStatus(ErrNoArticle) // what is no name names no article
	}
	stock, err := s.Stock(r.Context(), sku)
	return http.StatusOK, stock, withStatus(err)
}

// orderID reads the id in the path. What is no id names no order.
func orderID(r *http.Request) (uuid.UUID, error) {
	id, err := service.ParseUUID(r.PathValue("id"))
	if err != nil {
		return id, withStatus(ErrNotFound)
	}
	return id, nil
}

// withStatus returns the service's errors with the HTTP status of their response.
func withStatus(err error) error {
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrNoArticle):
		return service.NotFound("%v", err)
	case errors.Is(err, ErrNoStock), errors.Is(err, ErrFinal), errors.Is(err, ErrReserved), errors.Is(err, ErrOther):
		return service.Conflict("%v", err)
	}
	return err
}
