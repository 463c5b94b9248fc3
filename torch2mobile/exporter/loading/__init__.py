"""From what the user named to a module, an example call and what is declared of its inputs."""
