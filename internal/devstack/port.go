package devstack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Free ports are looked for in bands below those that the system gives to outgoing connections (from 32768 on Linux):
// else such a connection could sit on the port of a server that is down, even one made to that very port. A band for
// each server keeps two that start at the same time apart.
const (
	bandWidth    = 5000
	postgresBand = 15000
	namesBand    = 20000
	brokerBand   = 25000
)

// choosePort returns port after a check that it and its neighbours at the given offsets are free. If port is 0 it
// finds one in the band.
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

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
