package rocketmqtest

import "strconv"

// dmsInstant returns when DMS delivers a scheduled message, in milliseconds, and whether the message is one. A message that
// cancels another has the instant of the other.
func dmsInstant(properties map[string]string) (int64, bool, error) {
	s, set := properties[propertyStartDeliver]
	if _, waited := properties[propertyTimerOut]; waited || !set {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, true, err
}
