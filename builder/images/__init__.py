"""Both Dockerfiles built for real and run to a picture, with Debian's tools and without a container daemon.

    store      buildah over a folder of its own: chroot isolation, overlays
    base       what stands in for the registry's base image, made by debootstrap
    compose    the compose file's services, read as docker compose reads them
    services   those services as containers, started in order
    volumes    their named volumes
    apart      a run with processes, mounts and a network of its own
    processes  what a container's runtime has started
    pictures   each image run to a picture, as root and as the unprivileged user
    report     what came of it, as Markdown

`python -m builder.images` (`make images-test`) builds, runs and writes deploy/images.md. It needs root, buildah,
debootstrap, a file system at build/images that takes overlays, about 4 GB there, and a quarter of an hour for the first
time.
"""
