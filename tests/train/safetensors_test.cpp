// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <doctest/doctest.h>

#include <segmed/core/random.hpp>
#include <segmed/train/safetensors.hpp>

using namespace segmed;
namespace fs = std::filesystem;

namespace {

struct Folder {  // gone at the end of the test
  fs::path path;
  Folder() {
    char name[] = "/tmp/segmed_safetensors_XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
  std::size_t files() const {
    return std::size_t(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
};

TensorFile sample() {
  TensorFile file;
  file.metadata = {{"name", "a \"quoted\" thing\n"}, {"plain", "1"}, {"other", "µm"}};
  file.tensors["weight"] = StoredTensor::of(std::vector<float>{1, 2.5f, -3, 0, 1e-30f, 7}, {2, 3});
  file.tensors["double"] = StoredTensor::of(std::vector<double>{0.1, 1e300});
  file.tensors["labels"] = StoredTensor::of(std::vector<std::uint8_t>{1, 2, 255});
  file.tensors["counts"] = StoredTensor::of(std::vector<std::int64_t>{-5}, {});
  file.tensors["empty"] = StoredTensor::of(std::vector<float>{}, {4, 0});
  return file;
}
std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void put(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}
std::string file_with(const std::string& header, std::size_t data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data, 'x');
}
std::string error_of(const std::string& bytes) {
  try {
    SafeTensors::parse(bytes, "f");
  } catch (const FileError& error) {
    return error.what();
  }
  return "no error";
}
std::string tensor_text(const char* name, const char* type, const char* shape,
                        const char* offsets) {
  return std::string("\"") + name + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

}  // namespace

TEST_SUITE("train/safetensors") {
  TEST_CASE("what is written is read back") {
    const Folder folder;
    const std::string path = folder / "a.safetensors";
    const TensorFile file = sample();
    SafeTensors::write(path, file);
    const TensorFile back = SafeTensors::read(path);
    CHECK(back.metadata == file.metadata);
    CHECK(back.tensors == file.tensors);
    CHECK(back.verified);
    CHECK(back.tensors.at("weight").as<float>()[1] == 2.5f);
    CHECK(folder.files() == 1);
    CHECK_THROWS_WITH_AS(back.tensors.at("weight").as<double>(),
                         "segmed: archive: numbers are of type F32, not F64", DataError);
    SafeTensors::write(path, {});
    CHECK(SafeTensors::read(path).tensors.empty());
  }

  TEST_CASE("numbers lie aligned and the header ends on eight bytes") {
    const Folder folder;
    SafeTensors::write(folder / "a", sample());
    const std::string bytes = bytes_of(folder / "a");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    CHECK(length % 8 == 0);
    const Json header = parse_json(std::string_view(bytes).substr(8, length));
    for (const auto& [name, entry] : header.as_object())
      if (name != "__metadata__")
        CHECK(entry.at("data_offsets").as_array()[0].as_index() %
                  type_size(entry.at("dtype").as_string()) ==
              0);
  }

  TEST_CASE("NumPy reads what is written, and what NumPy writes is read") {
    const Folder folder;
    SafeTensors::write(folder / "ours", sample());
    const std::string script =
        "import json,struct,numpy as np,sys\n"
        "b=open('" +
        folder / "ours" +
        "','rb').read()\n"
        "n=struct.unpack('<Q',b[:8])[0]; h=json.loads(b[8:8+n]); m=h.pop('__metadata__')\n"
        "t={'F32':'<f4','F64':'<f8','U8':'u1','I64':'<i8'}\n"
        "a={k:np.frombuffer(b[8+n:][v['data_offsets'][0]:v['data_offsets'][1]],t[v['dtype']])"
        ".reshape(v['shape']) for k,v in h.items()}\n"
        "assert a['weight'].tolist()[0]==[1,2.5,-3] and a['double'][0]==0.1\n"
        "assert a['counts']==-5 and a['labels'][2]==255 and a['empty'].shape==(4,0)\n"
        "assert m['name']=='a \"quoted\" thing\\n' and m['other']=='\\u00b5m'\n"
        "w=np.arange(12,dtype='<f4').reshape(3,4)\n"
        "j=json.dumps({'w':{'dtype':'F32','shape':[3,4],'data_offsets':[0,48]}}).encode()\n"
        "open('" +
        folder / "theirs" + "','wb').write(struct.pack('<Q',len(j))+j+w.tobytes())\n";
    put(folder / "script.py", script);
    if (std::system("/usr/bin/python3 -c 'import numpy' 2>/dev/null") != 0) {
      MESSAGE("skipped: no NumPy under /usr/bin/python3");
      return;
    }
    REQUIRE(std::system(("/usr/bin/python3 " + folder / "script.py").c_str()) == 0);
    const TensorFile theirs = SafeTensors::read(folder / "theirs");
    CHECK(theirs.tensors.at("w").shape == std::vector<Index>{3, 4});
    CHECK(theirs.tensors.at("w").as<float>()[11] == 11);
    CHECK(!theirs.verified);
  }

  TEST_CASE("every way to break the format has its sentence") {
    const std::string good = "{" + tensor_text("w", "F32", "[2]", "[0,8]") + "}";
    CHECK(error_of(file_with(good, 8)) == "no error");
    CHECK(error_of("short") == "segmed: safetensors: f: a file of 5 bytes has no header");
    CHECK(error_of(std::string(8, '\xff')) ==
          "segmed: safetensors: f: a header of 18446744073709551615 bytes exceeds the limit of "
          "104857600");
    CHECK(error_of(file_with(good, 8).substr(0, 20)) == "segmed: safetensors: f: the header has " +
                                                            std::to_string(good.size()) +
                                                            " bytes, but only 12 follow");
    CHECK(error_of(file_with("[1]", 0)) ==
          "segmed: safetensors: f: the header does not begin with {");
    CHECK(error_of(file_with(good, 9)) ==
          "segmed: safetensors: f: after the tensors 1 bytes are left");
    CHECK(error_of(file_with(good, 7)) ==
          "segmed: safetensors: f: tensor \"w\" lies at 0 to 8 of 7 bytes");
    CHECK(error_of(file_with("{" + tensor_text("w", "F32", "[3]", "[0,8]") + "}", 8)) ==
          "segmed: safetensors: f: tensor \"w\" has 8 bytes, but its shape asks for 12");
    CHECK(error_of(file_with("{" + tensor_text("w", "F31", "[2]", "[0,8]") + "}", 8)) ==
          "segmed: safetensors: f: tensor \"w\" has the unknown type \"F31\"");
    CHECK(error_of(file_with("{" + tensor_text("w", "F32", "[2]", "[8,16]") + "}", 16)) ==
          "segmed: safetensors: f: the data has a hole or an overlap at byte 0");
    CHECK(error_of(file_with("{" + tensor_text("w", "F32", "[2]", "[0,8]") + "," +
                                 tensor_text("v", "F32", "[2]", "[4,12]") + "}",
                             12)) ==
          "segmed: safetensors: f: the data has a hole or an overlap at byte 4");
    CHECK(error_of(file_with("{" + tensor_text("w", "F32", "[2]", "[0,8,9]") + "}", 9)) ==
          "segmed: safetensors: f: tensor \"w\" has 3 data_offsets, not 2");
    const std::string huge = "[4294967296,4294967296,4294967296]";
    CHECK(error_of(file_with("{" + tensor_text("w", "F64", huge.c_str(), "[0,8]") + "}", 8)) ==
          "segmed: safetensors: f: tensor \"w\" has 8 bytes, but its shape asks for -1");
    CHECK(error_of(file_with("{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8)) ==
          "segmed: safetensors: f: tensor \"w\" is not described by dtype, shape and data_offsets "
          "alone");
    CHECK(error_of(file_with("{" + tensor_text("w", "F32", "[2.5]", "[0,8]") + "}", 8)) ==
          "segmed: json: 2.5 is no whole number below 2^53 in f");
    CHECK(error_of(file_with("{" + tensor_text("w", "F32", "[2]", "[0,8]") + "," +
                                 tensor_text("w", "F32", "[2]", "[8,16]") + "}",
                             16)) != "no error");
    CHECK(error_of(file_with("{\"__metadata__\":{\"a\":1}}", 0)) ==
          "segmed: json: a value is a number, not a string in f");
  }

  TEST_CASE("every flipped bit of a file is noticed, or was in the name of the checksum") {
    const Folder folder;
    SafeTensors::write(folder / "a", sample());
    const std::string good = bytes_of(folder / "a");
    const std::size_t name = good.find(SafeTensors::checksum_key);
    const std::size_t after = name + std::strlen(SafeTensors::checksum_key);
    for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
      std::string bad = good;
      bad[bit / 8] = char(bad[bit / 8] ^ (1 << bit % 8));
      const bool in_name = bit / 8 >= name && bit / 8 < after;
      if (error_of(bad) == "no error") {
        REQUIRE(in_name);
        CHECK(!SafeTensors::parse(bad, "f").verified);
      }
    }
  }

  TEST_CASE("ten thousand mutations crash nothing and change no tensor without a word") {
    const Folder folder;
    SafeTensors::write(folder / "a", sample());
    const std::string good = bytes_of(folder / "a");
    const TensorFile expected = SafeTensors::parse(good, "f");
    int accepted = 0;
    for (std::uint32_t trial = 0; trial < 10000; ++trial) {
      const Philox random{11, Purpose::noise, trial, 0};
      std::string bad = good;
      const Index edits = 1 + random.below(0, 4);
      for (Index edit = 0; edit < edits; ++edit) {
        const auto at = std::size_t(random.below(10 * edit + 1, Index(bad.size())));
        const auto length = std::size_t(random.below(10 * edit + 2, 12));
        const auto from = std::size_t(random.below(10 * edit + 3, Index(good.size())));
        switch (random.below(10 * edit + 4, 5)) {
          case 0:
            bad[at] = char(random.below(10 * edit + 5, 256));
            break;
          case 1:
            bad.erase(at, length);
            break;
          case 2:
            bad.insert(at, good.substr(from, length));
            break;
          case 3:
            bad.replace(at, length, good.substr(from, length));
            break;
          default:
            bad[at] = "0123456789[]{},:\"-e."[random.below(10 * edit + 6, 20)];
        }
        if (bad.empty()) bad = "x";
      }
      try {
        const TensorFile got = SafeTensors::parse(bad, "f");
        ++accepted;
        if (got.verified) {
          CHECK(got.tensors == expected.tensors);
          CHECK(got.metadata == expected.metadata);
        }
      } catch (const FileError&) {
      }
    }
    CHECK(accepted < 500);
  }

  TEST_CASE("a file without a checksum survives mutations too") {
    const std::string good = file_with("{" + tensor_text("w", "F32", "[2]", "[0,8]") + "," +
                                           tensor_text("v", "U8", "[2,3]", "[8,14]") + "}",
                                       14);
    for (std::uint32_t trial = 0; trial < 10000; ++trial) {
      const Philox random{12, Purpose::noise, trial, 0};
      std::string bad = good;
      for (Index edit = 0; edit <= random.below(0, 3); ++edit)
        bad[std::size_t(random.below(3 * edit + 1, Index(bad.size())))] =
            "0123456789[]{},:\"-e.\xff"[random.below(3 * edit + 2, 21)];
      try {
        for (const auto& [name, tensor] : SafeTensors::parse(bad, "f").tensors) {
          Index size = type_size(tensor.type);
          for (const Index extent : tensor.shape) size *= extent;
          CHECK(size == Index(tensor.bytes.size()));
        }
      } catch (const FileError&) {
      }
    }
  }

  TEST_CASE("a file that cannot be written is an error that names it, and the old one is intact") {
    const Folder folder;
    SafeTensors::write(folder / "a", sample());
    const std::string before = bytes_of(folder / "a");
    TensorFile large;
    large.tensors["w"] = StoredTensor::of(std::vector<float>(std::size_t(1) << 18));

    // The system refuses more than 100,000 bytes, as a full disk does.
    ::rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    ::rlimit small = unlimited;
    small.rlim_cur = 100000;
    ::setrlimit(RLIMIT_FSIZE, &small);
    std::string text;
    try {
      SafeTensors::write(folder / "a", large);
    } catch (const FileError& error) {
      text = error.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &unlimited);
    std::signal(SIGXFSZ, handler);
    CHECK(text ==
          "segmed: write: " + folder / "a" + ": 100000 bytes were written, then: File too large");
    CHECK(bytes_of(folder / "a") == before);
    CHECK(folder.files() == 1);

    CHECK_THROWS_WITH_AS(SafeTensors::write(folder / "nowhere/a", large),
                         ("segmed: write: " + folder / "nowhere/a" +
                          ": cannot be created: No such file or directory")
                             .c_str(),
                         FileError);
    CHECK_THROWS_AS(SafeTensors::read(folder / "b"), FileError);
    CHECK_THROWS_AS(SafeTensors::read(folder.path.string()), FileError);
  }

  TEST_CASE("a full disk is an error with its reason, and the old file is intact") {
    const Folder folder;
    const std::string disk = folder / "disk";
    fs::create_directory(disk);
    if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0) {
      MESSAGE("skipped: only root can make a small disk");
      return;
    }
    const std::string path = disk + "/a";
    SafeTensors::write(path, sample());
    TensorFile large;
    large.tensors["w"] = StoredTensor::of(std::vector<float>(std::size_t(1) << 18));
    std::string text;
    try {
      SafeTensors::write(path, large);
    } catch (const FileError& error) {
      text = error.what();
    }
    CHECK(text.find("segmed: write: " + path + ": ") == 0);
    CHECK(text.find("bytes were written, then: No space left on device") != text.npos);
    CHECK(SafeTensors::read(path).tensors == sample().tensors);
    CHECK(std::distance(fs::directory_iterator(disk), fs::directory_iterator()) == 1);
    ::umount(disk.c_str());
  }

  TEST_CASE("a program that is killed while it writes leaves a whole file") {
    const Folder folder;
    const std::string path = folder / "a";
    const auto content = [](int number) {
      TensorFile file;
      file.metadata["number"] = std::to_string(number);
      file.tensors["w"] = StoredTensor::of(std::vector<float>(std::size_t(20000), float(number)));
      return file;
    };
    SafeTensors::write(path, content(0));
    int last = 0;
    for (int trial = 0; trial < 20; ++trial) {
      const pid_t child = ::fork();
      if (child == 0) {
        for (int number = last + 1;; ++number) SafeTensors::write(path, content(number));
      }
      ::usleep(useconds_t(1000 + Philox{5, Purpose::noise}.below(trial, 30000)));
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      const TensorFile found = SafeTensors::read(path);
      CHECK(found.verified);
      const int number = std::stoi(found.metadata.at("number"));
      CHECK(number >= last);
      CHECK(found.tensors.at("w").as<float>()[19999] == float(number));
      last = number;
    }
  }

  TEST_CASE("names and texts that are no UTF-8 are refused") {
    const Folder folder;
    TensorFile file;
    file.metadata["a"] = "\xff";
    CHECK_THROWS_WITH_AS(
        SafeTensors::write(folder / "a", file),
        ("segmed: safetensors: " + folder / "a" + ": metadata \"a\" is not UTF-8").c_str(),
        FileError);
    file = {};
    file.tensors["w"] = {"F32", {3}, "1234"};
    CHECK_THROWS_AS(SafeTensors::write(folder / "a", file), FileError);
    CHECK(folder.files() == 0);
  }
}
