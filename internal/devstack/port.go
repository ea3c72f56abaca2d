package devstack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Ports are chosen from bands below those that the system uses for outgoing connections (from 32768 on Linux): such a
// connection could otherwise occupy the port of a server that is down. Each kind of server has a band of its own, so that two
// servers that start at the same time don't choose the same port.
const (
	bandWidth    = 5000
	postgresBand = 15000
	namesBand    = 20000
	brokerBand   = 25000
)

// choosePort checks that port and its neighbours at the offsets are free, and returns port. If port is 0, it chooses one from
// the band.
func choosePort(port, band int, offsets ...int) (int, error) {
	if port != 0 {
		return port, portFree(port, offsets)
	}
	var err error
	for range 100 {
		port = band + 2 + rand.IntN(bandWidth-4)
		if err = portFree(port, offsets); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// portFree returns an error if a port or one of its neighbours at the offsets is in use.
func portFree(port int, offsets []int) error {
	for _, offset := range append([]int{0}, offsets...) {
		l, err := net.Listen("tcp", address(port+offset))
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port %d is taken by another program", port+offset)
		}
		if err != nil {
			return fmt.Errorf("port %d: %w", port+offset, err)
		}
		l.Close()
	}
	return nil
}

// address returns the loopback address of a port.
func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
