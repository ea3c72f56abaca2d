package service

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// maxBody bounds a request's body.
const maxBody = 64 << 10

// Decode reads the body of r: one JSON object with no fields but T's. An error is a 400 that names the field.
func Decode[T any](r *http.Request) (T, error) {
	var v T
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return v, BadField("body", "larger than %d bytes", maxBody)
	case err != nil:
		return v, BadField("body", "%v", err)
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, decodeError(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return v, BadField("body", "something follows the JSON object")
	}
	return v, nil
}

func decodeError(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		return BadField(wrongType.Field, "is a JSON %s, want %s", wrongType.Value, wrongType.Type)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return BadField(cmp.Or(strings.Trim(field, `"`), "body"), "unknown field %s", field)
	}
	if errors.Is(err, io.EOF) {
		return BadField("body", "is empty, want a JSON object")
	}
	return BadField("body", "%s", strings.TrimPrefix(err.Error(), "json: "))
}

// Time is an instant as the services print it: RFC 3339 in UTC with microseconds, the resolution of Postgres.
type Time struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"2006-01-02T15:04:05.000000Z07:00"`)), nil
}

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (t *Time) ScanTimestamptz(v pgtype.Timestamptz) error {
	t.Time = v.Time
	return nil
}
