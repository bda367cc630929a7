/* SPDX-License-Identifier: MIT */
#include "os/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/error.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW)

enum semel_status sml_sealed_create(size_t size, int *out_fd, void **out_data)
{
    int fd = memfd_create("semel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *data = MAP_FAILED;
    int error;

    if (fd >= 0 && ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
        data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data != MAP_FAILED) {
        *out_fd = fd;
        *out_data = data;
        return SEMEL_OK;
    }
    error = errno;
    if (fd >= 0)
        (void)close(fd);
    return sml_error_status(error);
}

const void *sml_sealed_map(int fd, size_t size)
{
    struct stat what;
    int seals = fcntl(fd, F_GET_SEALS);
    void *data;

    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &what) != 0 || size == 0 ||
        (uint64_t)what.st_size != size)
        return NULL;
    data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    return data == MAP_FAILED ? NULL : data;
}

void sml_sealed_unmap(const void *data, size_t size)
{
    (void)munmap((void *)(uintptr_t)data, size);
}

void sml_sealed_close(int fd)
{
    (void)close(fd);
}
