package rocketmqtest

// TB is the part of testing.TB that RunT needs. With it this package does not import testing.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// RunT starts a server for a test and closes it when the test ends. At most one config may be given. If the server can't
// start, RunT fails the test.
func RunT(t TB, config ...Config) *Server {
	t.Helper()
	var c Config
	if len(config) > 0 {
		c = config[0]
	}
	s, err := New(c)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(s.Close)
	return s
}
