# SPDX-License-Identifier: MIT
"""An installed copy serves programs outside the tree: those of README.md, as C99 and as C++17,
found with pkg-config and with CMake, linked with libsemel.so and with libsemel.a."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

import house
import test_readme

WARN = ['-Wall', '-Wextra', '-pedantic', '-Werror']
LANGUAGES = {'C99': ['gcc', '-std=c99'], 'C++17': ['g++', '-x', 'c++', '-std=c++17']}
PROGRAMS = ('hello_server', 'hello_client')

CMAKE = '''
cmake_minimum_required(VERSION 3.13)
project(outside C CXX)
find_package(semel 0.4 REQUIRED)
function(program name target language)
  configure_file(${name}.c ${name}_${language}.${ARGV3} COPYONLY)
  add_executable(${name}_${language}_${target} ${name}_${language}.${ARGV3})
  target_link_libraries(${name}_${language}_${target} PRIVATE semel::${target})
endfunction()
set(CMAKE_C_STANDARD 99)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
foreach(name hello_server hello_client)
  foreach(target semel semel_static)
    program(${name} ${target} C99 c)
    program(${name} ${target} C++17 cc)
  endforeach()
endforeach()
'''


STORE = '''
#include <semel/semel.h>
#include <semel/sqlite.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    struct semel_store *store;
    struct semel_store_info info;
    char why[256];

    if (argc != 2 || semel_sqlite_open(&store, argv[1], NULL, why, sizeof why) != SEMEL_OK) {
        fprintf(stderr, "%s\\n", why);
        return 1;
    }
    semel_store_info(store, &info);
    printf("generation %d\\n", (int)info.generation);
    semel_store_close(store);
    return 0;
}
'''


ADAPTERS = {
    'semel-uv': (house.UV_LIBRARY, '''
#include <uv.h>
#include <semel/uv.h>
#include <stdio.h>

static void count(void *user)
{
    puts("served");
    semel_uv_detach(*(struct semel_uv **)user);
}

int main(void)
{
    struct semel_uv *attached;
    struct semel_task task = SEMEL_TASK_INIT(count, &attached);
    struct semel_loop *loop;
    uv_loop_t uv;

    return uv_loop_init(&uv) || semel_loop_create(&loop, NULL) ||
           semel_uv_attach(&attached, &uv, loop) || semel_loop_post(loop, &task) ||
           uv_run(&uv, UV_RUN_DEFAULT) || semel_loop_destroy(loop) || uv_loop_close(&uv);
}
'''),
    'semel-glib': (house.GLIB_LIBRARY, '''
#include <glib.h>
#include <semel/glib.h>
#include <stdio.h>

static void count(void *user)
{
    puts("served");
    g_main_loop_quit(user);
}

int main(void)
{
    GMainLoop *own = g_main_loop_new(NULL, FALSE);
    struct semel_task task = SEMEL_TASK_INIT(count, own);
    struct semel_loop *loop;
    GSource *source;

    if (semel_loop_create(&loop, NULL) || (source = semel_glib_source_new(loop)) == NULL ||
        g_source_attach(source, NULL) == 0 || semel_loop_post(loop, &task))
        return 1;
    g_main_loop_run(own);
    g_source_destroy(source);
    g_source_unref(source);
    g_main_loop_unref(own);
    return semel_loop_destroy(loop);
}
'''),
}


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.mkdtemp(prefix='semel-install-')
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        cls.prefix = os.path.join(cls.scratch, 'prefix')
        build = os.path.join(cls.scratch, 'build')
        house.must(['meson', 'setup', build, house.ROOT, '-Dprefix=' + cls.prefix,
                    '-Dtests=false', '-Dtool=false', '-Dexamples=false', '-Dbench=false'],
                   env=dict(os.environ, CC='gcc'))
        house.must(['ninja', '-C', build])
        house.must(['meson', 'install', '-C', build, '--no-rebuild'])
        cls.outside = os.path.join(cls.scratch, 'outside')
        os.mkdir(cls.outside)
        for name, text in zip(PROGRAMS, test_readme.programs()):
            with open(os.path.join(cls.outside, name + '.c'), 'w', encoding='utf-8') as file:
                file.write(text)

    def libdir(self, prefix=None):
        for path, _, files in os.walk(prefix or self.prefix):
            if 'libsemel.so.0' in files:
                return path
        raise AssertionError('no libsemel.so.0 below the prefix')

    def pkg_config(self, *words, package='semel'):
        env = dict(os.environ, PKG_CONFIG_PATH=os.path.join(self.libdir(), 'pkgconfig'))
        return house.must(['pkg-config', *words, package], env=env).split()

    def talk(self, server, client, env=None):
        """Run the two programs; the client's answer must be the server's."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as here:
            serving = subprocess.Popen([server], cwd=here, env=env, stdin=subprocess.DEVNULL)
            try:
                out = house.must([client, 'from outside'], cwd=here, env=env, timeout=60)
                self.assertIsNone(serving.poll(), 'the server left')
            finally:
                serving.kill()
                serving.wait()
        self.assertEqual(out, 'hello, from outside\n')

    def needed(self, program):
        out = house.must(['readelf', '-dW', program])
        return re.findall(r'\(NEEDED\).*\[(.*)\]', out)

    def test_files(self):
        lib = self.libdir()
        self.assertEqual(os.readlink(os.path.join(lib, 'libsemel.so')), 'libsemel.so.0')
        self.assertTrue(os.path.exists(os.path.join(lib, 'libsemel.a')))
        have = sorted(os.listdir(os.path.join(self.prefix, 'include', 'semel')))
        self.assertEqual(have, house.installed_headers())
        self.assertEqual(self.pkg_config('--modversion'),
                         re.findall(r"version: '([\d.]+)'", house.read('meson.build')))

    def build_with_pkg_config(self, language, static):
        made = []
        for name in PROGRAMS:
            program = os.path.join(self.outside, f'{name}_{language}_{static}')
            libs = ['-L' + self.libdir(), '-l:libsemel.a', '-pthread'] if static \
                else self.pkg_config('--libs')
            house.must(LANGUAGES[language] + WARN + self.pkg_config('--cflags')
                       + [os.path.join(self.outside, name + '.c'), '-x', 'none', '-o', program]
                       + libs)
            made.append(program)
        return made

    def test_pkg_config_shared(self):
        env = dict(os.environ, LD_LIBRARY_PATH=self.libdir())
        for language in LANGUAGES:
            with self.subTest(language=language):
                server, client = self.build_with_pkg_config(language, False)
                self.assertIn('libsemel.so.0', self.needed(server))
                self.talk(server, client, env)

    def test_pkg_config_static(self):
        for language in LANGUAGES:
            with self.subTest(language=language):
                server, client = self.build_with_pkg_config(language, True)
                self.assertNotIn('libsemel.so.0', self.needed(server) + self.needed(client))
                self.talk(server, client)

    @unittest.skipUnless(house.SQLITE_LIBRARY, 'libsemel_sqlite is not built here')
    def test_stores(self):
        """A program with a store, by pkg-config, shared and static."""
        source = os.path.join(self.outside, 'store.c')
        with open(source, 'w', encoding='utf-8') as file:
            file.write(STORE)
        static = ['-L' + self.libdir(), '-l:libsemel_sqlite.a', '-l:libsemel.a', '-lsqlite3',
                  '-pthread']
        for libs in self.pkg_config('--libs', package='semel-sqlite'), static:
            with self.subTest(libs=libs):
                program = os.path.join(self.outside, 'store')
                house.must(['gcc', '-std=c99'] + WARN
                           + self.pkg_config('--cflags', package='semel-sqlite')
                           + [source, '-o', program] + libs)
                out = house.must([program, os.path.join(self.outside, 'store.db')],
                                 env=dict(os.environ, LD_LIBRARY_PATH=self.libdir()))
                self.assertEqual(out, 'generation 1\n')

    def test_adapters(self):
        """A program with a foreign loop, by pkg-config."""
        for package, (built, text) in ADAPTERS.items():
            if not built:
                continue
            with self.subTest(package=package):
                source = os.path.join(self.outside, package + '.c')
                with open(source, 'w', encoding='utf-8') as file:
                    file.write(text)
                house.must(['gcc', '-std=gnu99', '-Wall', '-Wextra', '-Werror']
                           + self.pkg_config('--cflags', package=package)
                           + [source, '-o', source[:-2]]
                           + self.pkg_config('--libs', package=package))
                out = house.must([source[:-2]],
                                 env=dict(os.environ, LD_LIBRARY_PATH=self.libdir()))
                self.assertEqual(out, 'served\n')

    @unittest.skipUnless(house.SQLITE_LIBRARY, 'libsemel_sqlite is not built here')
    def test_store_of_the_readme(self):
        source = os.path.join(self.outside, 'stock_server.c')
        with open(source, 'w', encoding='utf-8') as file:
            file.write(test_readme.programs()[2])
        flags = self.pkg_config('--cflags', '--libs', 'sqlite3', package='semel-sqlite')
        for language in LANGUAGES:
            with self.subTest(language=language):
                house.must(LANGUAGES[language] + WARN + [source, '-x', 'none', '-o',
                           os.path.join(self.outside, 'stock_server')] + flags)

    def cmake(self, prefix, name):
        source = os.path.join(self.outside, 'cmake')
        os.makedirs(source, exist_ok=True)
        with open(os.path.join(source, 'CMakeLists.txt'), 'w', encoding='utf-8') as file:
            file.write(CMAKE)
        for program in PROGRAMS:
            shutil.copy(os.path.join(self.outside, program + '.c'), source)
        build = os.path.join(self.outside, name)
        house.must(['cmake', '-S', source, '-B', build, '-DCMAKE_PREFIX_PATH=' + prefix,
                    '-DCMAKE_C_FLAGS=-Wall -Wextra -Werror',
                    '-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror'])
        house.must(['cmake', '--build', build])
        for language in LANGUAGES:
            for target in ('semel', 'semel_static'):
                with self.subTest(language=language, target=target):
                    server, client = (os.path.join(build, f'{p}_{language}_{target}')
                                      for p in PROGRAMS)
                    self.assertEqual('libsemel.so.0' in self.needed(server), target == 'semel')
                    self.talk(server, client)

    def test_cmake(self):
        self.cmake(self.prefix, 'build')

    def test_cmake_after_the_tree_moved(self):
        moved = os.path.join(self.scratch, 'moved')
        shutil.copytree(self.prefix, moved, symlinks=True)
        self.cmake(moved, 'build-moved')

    def test_cmake_refuses_another_minor_version(self):
        source = os.path.join(self.outside, 'wants-0.3')
        os.makedirs(source)
        with open(os.path.join(source, 'CMakeLists.txt'), 'w', encoding='utf-8') as file:
            file.write('cmake_minimum_required(VERSION 3.13)\nproject(x C)\n'
                       'find_package(semel 0.3 REQUIRED)\n')
        status, out = house.run(['cmake', '-S', source, '-B', os.path.join(source, 'b'),
                                 '-DCMAKE_PREFIX_PATH=' + self.prefix])
        self.assertNotEqual(status, 0)
        self.assertIn('semel', out)


if __name__ == '__main__':
    unittest.main()
