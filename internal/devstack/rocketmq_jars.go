package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// RocketMQVersion is the version that is downloaded and run.
const RocketMQVersion = "5.3.3"

// pom is the Maven project that depends on name server, broker and tools.
const pom = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>rocketflow</groupId>
  <artifactId>devstack</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-namesrv</artifactId><version>` + RocketMQVersion + `</version></dependency>
    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-broker</artifactId><version>` + RocketMQVersion + `</version></dependency>
    <dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-tools</artifactId><version>` + RocketMQVersion + `</version></dependency>
  </dependencies>
</project>
`

// rocketmqJars returns the directory of RocketMQ's jars. The first call downloads them with Maven (83 MB).
func rocketmqJars(ctx context.Context, cache, java string, log *slog.Logger) (string, error) {
	dir, err := cacheDir(cache)
	if err != nil {
		return "", err
	}
	dir, err = cached(ctx, dir, "rocketmq-"+RocketMQVersion, func(ctx context.Context, dir string) error {
		log.Info("RocketMQ is downloaded with Maven, once", "version", RocketMQVersion, "dir", dir)
		return fetchRocketMQ(ctx, dir, java)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "lib"), nil
}

// fetchRocketMQ downloads the jars into a directory.
func fetchRocketMQ(ctx context.Context, dir, java string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return errors.New("RocketMQ has to be downloaded once, and Maven (mvn) is not in PATH: install it")
	}
	pomFile := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(pomFile, []byte(pom), 0o644); err != nil {
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
		return fmt.Errorf("fetch RocketMQ %s with Maven: %w%s", RocketMQVersion, err, lastLines(out))
	}
	jars, _ := filepath.Glob(filepath.Join(dir, "lib", "rocketmq-broker-*.jar"))
	if len(jars) == 0 {
		return fmt.Errorf("fetch RocketMQ %s with Maven: no broker was downloaded%s", RocketMQVersion, lastLines(out))
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
