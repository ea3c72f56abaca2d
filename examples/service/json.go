package service

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Decode decodes the body of r, which must be one JSON object without unknown fields. An error has status 400 and names the
// field, 413 for more than maxBody bytes, or 415 for another Content-Type than JSON. Without a Content-Type the body is taken
// for JSON.
func Decode[T any](r *http.Request) (T, error) {
	var v T
	if given := r.Header.Get("Content-Type"); given != "" {
		media, params, err := mime.ParseMediaType(given)
		charset, encoded := params["charset"]
		if err != nil || media != "application/json" || encoded && !strings.EqualFold(charset, "utf-8") {
			return v, BadMediaType("content type is %.80q, want application/json", given)
		}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return v, &Error{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("body: larger than %d bytes", maxBody), Field: "body"}
	case err != nil:
		return v, BadField("body", "%v", err)
	}
	if body := bytes.TrimLeft(raw, " \t\r\n"); len(body) > 0 && body[0] != '{' {
		return v, BadField("body", "is not a JSON object")
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

// Query returns the query of r, which may have only the named parameters, each once. An error has status 400 and names one.
func Query(r *http.Request, names ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, BadField("query", "can't be read")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		switch {
		case !slices.Contains(names, name):
			return nil, BadField(name, "unknown parameter")
		case len(query[name]) > 1:
			return nil, BadField(name, "is given more than once")
		}
	}
	return query, nil
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

// Time is an instant whose JSON form is RFC 3339 in UTC with microseconds, the resolution of Postgres.
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
