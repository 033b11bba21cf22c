// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <segmed/core/error.hpp>

TEST_SUITE_BEGIN("core/error");
using namespace segmed;

TEST_CASE("an error says who, and the fact with its numbers") {
  CHECK_THROWS_WITH_AS(fail("conv", "input has ", 3, " channels, not ", 4),
                       "segmed: conv: input has 3 channels, not 4", ShapeError);
  CHECK_THROWS_WITH_AS(fail<FileError>("nifti", "a.nii", ": ", 0.5, " mm"),
                       "segmed: nifti: a.nii: 0.5 mm", FileError);
}

TEST_CASE("require throws the error that it was asked for, and only when it must") {
  CHECK_NOTHROW(require(true, "x", "never"));
  CHECK_THROWS_AS(require(false, "x", "y"), ShapeError);
  CHECK_THROWS_AS(require<DataError>(false, "x", "y"), DataError);
  CHECK_THROWS_AS(require<DeviceError>(false, "x", "y"), DeviceError);
  CHECK_THROWS_AS(require<ConfigError>(false, "x", "y"), ConfigError);
}

TEST_CASE("every error is an Error and a runtime_error") {
  CHECK_THROWS_AS(fail<FileError>("x", "y"), Error);
  CHECK_THROWS_AS(fail<ShapeError>("x", "y"), std::runtime_error);
}

TEST_SUITE_END();
