"""From a failed comparison to the first node that is wrong on the right inputs."""
