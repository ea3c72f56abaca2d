package service

import (
	"errors"

	"github.com/google/uuid"
)

var errNotUUID = errors.New("want a UUID such as 0190163d-8694-739b-aea5-966c26f8ad90")

// ParseUUID parses a UUID in its canonical form of 36 characters, and no other.
func ParseUUID(s string) (uuid.UUID, error) {
	if len(s) != 36 {
		return uuid.Nil, errNotUUID
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return uuid.Nil, errNotUUID
	}
	return id, nil
}
