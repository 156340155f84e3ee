#!/bin/bash
# Makes a directory of packages a repository that apt installs from: "deb [signed-by=KEY] file:DIR ./", or by https.
#
#   packaging/repository.sh DIR
#
# With APT_KEY, a key of gpg's keyring, it is signed, and the public half is faena.asc. Without, apt wants [trusted=yes].
set -euo pipefail
cd "$1"
rm -f Packages Packages.gz Release Release.gpg InRelease faena.asc
apt-ftparchive packages . >Packages
gzip -9nk Packages
architectures=$(sed -n 's/^Architecture: //p' Packages | sort -u | grep -v '^all$' | xargs)
apt-ftparchive -o APT::FTPArchive::Release::Origin=Faena -o APT::FTPArchive::Release::Label=Faena -o APT::FTPArchive::Release::Suite=stable \
	-o APT::FTPArchive::Release::Architectures="$architectures" -o APT::FTPArchive::Release::Description='Packages of Faena' release . >../Release.new
mv ../Release.new Release # it must not list itself
if [[ -n ${SOURCE_DATE_EPOCH-} ]]; then sed -i "s/^Date: .*/Date: $(date -Rud "@$SOURCE_DATE_EPOCH")/" Release; fi
if [[ -n ${APT_KEY-} ]]; then
	gpg --batch --yes --local-user "$APT_KEY" --armor --detach-sign --output Release.gpg Release
	gpg --batch --yes --local-user "$APT_KEY" --clearsign --output InRelease Release
	gpg --batch --yes --armor --export --output faena.asc "$APT_KEY"
fi
