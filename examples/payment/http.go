package payment

import (
	"context"
	_ "embed"
	"errors"
	"net/http"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/examples/service"
)

// OpenAPI describes the service's HTTP interface.
//
//go:embed openapi.yaml
var OpenAPI []byte

// Routes adds the service's HTTP interface to a mux.
func (s *Service) Routes(mux *service.Mux) {
	mux.Handle("GET /payments/{order_id}", handler(http.StatusOK, s.Get))
	mux.Handle("POST /payments/{order_id}/pay", handler(http.StatusAccepted, s.Pay))
	mux.Handle("POST /payments/{order_id}/decline", handler(http.StatusAccepted, s.Decline))
}

func handler(status int, fn func(context.Context, uuid.UUID) (Payment, error)) service.Handler {
	return func(r *http.Request) (int, any, error) {
		id, err := service.ParseUUID(r.PathValue("order_id"))
		if err != nil {
			return 0, nil, service.NotFound("%v", ErrNotFound) // a text that is no id names no order
		}
		payment, err := fn(r.Context(), id)
		switch {
		case errors.Is(err, ErrNotFound):
			err = service.NotFound("%v", err)
		case errors.Is(err, ErrFinal):
			err = service.Conflict("%v", err)
		}
		return status, payment, err
	}
}
