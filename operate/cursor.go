package operate

import (
	"encoding/base64"
	"encoding/json"

	"github.com/rocketflow/rocketflow/internal/valid"
)

// Cursor is where the next page of a list begins. Empty: at the beginning of the list or, in a result, that there is no next page.
// It is plain text that can stand in an address, but its content has no meaning for others.
type Cursor string

// maxCursor bounds a cursor, which comes from outside, in bytes. Keys of rows are shorter.
const maxCursor = 8 << 10

// newCursor returns the cursor after a row with a key.
func newCursor(key ...string) Cursor {
	text, _ := json.Marshal(key) // strings can be encoded
	return Cursor(base64.RawURLEncoding.EncodeToString(text))
}

// key returns the key of the row before, with as many parts as first, which it returns at the
// beginning of the list. filter is the name of the filter's type.
func (c Cursor) key(filter string, first ...string) ([]string, error) {
	if c == "" {
		return first, nil
	}
	var key []string
	text, err := base64.RawURLEncoding.DecodeString(string(c))
	if len(c) > maxCursor || err != nil || json.Unmarshal(text, &key) != nil || len(key) != len(first) {
		return nil, cursorError(filter)
	}
	return key, nil
}

func cursorError(filter string) error {
	return valid.Field("operate."+filter+".After", "no cursor of this list")
}

// page cuts a list that was read with one row more than a page has, and returns the cursor after the last row of the page.
func page[T any](list []T, limit int64, key func(T) Cursor) ([]T, Cursor) {
	if int64(len(list)) <= limit {
		return list, ""
	}
	list = list[:limit]
	return list, key(list[len(list)-1])
}
