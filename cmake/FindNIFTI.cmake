# SPDX-License-Identifier: Apache-2.0
# Finds nifticlib's NIfTI-2 library (Debian: libnifti2-dev) and makes NIFTI::nifti2.
# Never in config mode: Debian 12 ships exported targets that point at files which are not there,
# and that stops a configuration even where the package is optional.

find_path(NIFTI_INCLUDE_DIR nifti2_io.h PATH_SUFFIXES nifti)
find_library(NIFTI_nifti2_LIBRARY nifti2)
find_library(NIFTI_znz_LIBRARY znz)
find_package(ZLIB QUIET)
mark_as_advanced(NIFTI_INCLUDE_DIR NIFTI_nifti2_LIBRARY NIFTI_znz_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NIFTI
  REQUIRED_VARS NIFTI_nifti2_LIBRARY NIFTI_znz_LIBRARY NIFTI_INCLUDE_DIR ZLIB_FOUND
  REASON_FAILURE_MESSAGE "install the Debian packages libnifti2-dev and zlib1g-dev")

if(NIFTI_FOUND AND NOT TARGET NIFTI::nifti2)
  add_library(NIFTI::nifti2 UNKNOWN IMPORTED)
  set_target_properties(NIFTI::nifti2 PROPERTIES
    IMPORTED_LOCATION "${NIFTI_nifti2_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${NIFTI_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "${NIFTI_znz_LIBRARY};ZLIB::ZLIB;m")
endif()
