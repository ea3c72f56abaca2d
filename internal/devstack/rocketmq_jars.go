package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// RocketMQVersion is the version that is downloaded and run unless another is asked for.
const RocketMQVersion = "5.3.3"

// rocketmqVersions are the versions whose names can be downloaded: not every one of them is on Maven with all jars. 4.9.7, 5.3.3, 5.4.0
// and 5.5.0 are.
var rocketmqVersions = regexp.MustCompile(`^(4\.9|5)\.[0-9]{1,3}(\.[0-9]{1,3})?$`)

// installation is a version of RocketMQ on this machine with the Java that runs it.
type installation struct {
	version string
	java    string // path of the program
	jars    string // directory
}

// install finds Java and the jars of a version, which the first call downloads. artifacts are those of Maven's group
// org.apache.rocketmq, without the prefix.
func install(ctx context.Context, version, cache string, log *slog.Logger, artifacts ...string) (i installation, err error) {
	i.version = version
	if !rocketmqVersions.MatchString(version) {
		return i, fmt.Errorf("RocketMQ %q: want a version such as 4.9.7 or %s", version, RocketMQVersion)
	}
	if i.java, err = findJava(ctx); err != nil {
		return i, err
	}
	i.jars, err = rocketmqJars(ctx, cache, i.java, log, version, artifacts...)
	return i, err
}

// is4 reports whether the version is one of RocketMQ 4.
func (i installation) is4() bool { return strings.HasPrefix(i.version, "4.") }

// brokerArtifacts are what a name server and a broker need, with the tools for whoever looks into a broker.
var brokerArtifacts = []string{"namesrv", "broker", "tools"}

// pom returns the Maven project that depends on artifacts of a version.
func pom(version string, artifacts []string) string {
	var b strings.Builder
	b.WriteString("<project>\n  <modelVersion>4.0.0</modelVersion>\n  <groupId>rocketflow</groupId>\n  <artifactId>devstack</artifactId>\n" +
		"  <version>1</version>\n  <dependencies>\n")
	for _, a := range artifacts {
		fmt.Fprintf(&b, "    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-%s</artifactId><version>%s</version></dependency>\n", a, version)
	}
	b.WriteString("  </dependencies>\n</project>\n")
	return b.String()
}

// rocketmqJars returns the directory of a version's jars. The first call downloads them with Maven (83 MB for name server, broker and
// tools of 5.3.3).
func rocketmqJars(ctx context.Context, cache, java string, log *slog.Logger, version string, artifacts ...string) (string, error) {
	dir, err := cacheDir(cache)
	if err != nil {
		return "", err
	}
	name := "rocketmq-" + version
	if len(artifacts) == 1 {
		name = "rocketmq-" + artifacts[0] + "-" + version
	}
	dir, err = cached(ctx, dir, name, func(ctx context.Context, dir string) error {
		log.Info("RocketMQ is downloaded with Maven, once", "version", version, "dir", dir)
		return fetchRocketMQ(ctx, dir, java, version, artifacts)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "lib"), nil
}

// fetchRocketMQ downloads the jars into a directory.
func fetchRocketMQ(ctx context.Context, dir, java, version string, artifacts []string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return errors.New("RocketMQ has to be downloaded once, and Maven (mvn) is not in PATH: install it")
	}
	pomFile := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(pomFile, []byte(pom(version, artifacts)), 0o644); err != nil {
		return fmt.Errorf("fetch RocketMQ: %w", err)
	}
	cmd := exec.CommandContext(ctx, mvn, "--batch-mode", "--quiet", "--file", pomFile, "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(dir, "lib"))
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "JAVA_HOME="+javaHome(java))
	out, err := cmd.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("fetch RocketMQ %s with Maven: %w%s", version, err, lastLines(out))
	}
	for _, a := range artifacts {
		if jars, _ := filepath.Glob(filepath.Join(dir, "lib", "rocketmq-"+a+"-*.jar")); len(jars) == 0 {
			return fmt.Errorf("fetch RocketMQ %s with Maven: no %s was downloaded%s", version, a, lastLines(out))
		}
	}
	return nil
}

// javaHome returns the installation directory of a java program, so that Maven uses the same one.
func javaHome(java string) string {
	if real, err := filepath.EvalSymlinks(java); err == nil {
		java = real
	}
	return strings.TrimSuffix(filepath.Dir(filepath.Dir(java)), "/jre")
}
