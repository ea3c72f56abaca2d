package rocketmqtest

import "strconv"

// dmsInstant reads when Huawei's DMS is to deliver a message, in milliseconds; false: it says nothing of that. A message
// that cancels another bears the other's instant.
func dmsInstant(properties map[string]string) (int64, bool, error) {
	s, set := properties[propertyStartDeliver]
	if _, waited := properties[propertyTimerOut]; waited || !set {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, true, err
}
